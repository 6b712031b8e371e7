"""The lists of docs/api/index.md, made from the docstrings: `python -m tests.api_index` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path
from pydoc import locate

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api" / "index.md"
_DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_START, _END = "<!-- names -->\n", "<!-- end of names -->\n"
# In the order of the site.
PAGES = re.findall(r"- api/(?!index)(\w+)\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def index() -> str:
    """For each page of the API its names, each with its first line."""
    return "\n".join(_page(PAGE.with_name(f"{name}.md")) for name in PAGES)


def written() -> str:
    """The lists as the page has them."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index(_START) + len(_START) : text.index(_END)]


def _page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    (title,) = _HEADING.findall(text)
    lines = [f"- [`{_shown(name)}`]({path.name}#{name}): {_said(name)}" for name in _DIRECTIVE.findall(text)]
    return "\n".join([f"## [{title}]({path.name})\n", *lines, ""])


def _shown(name: str) -> str:
    """A name as it is typed, without the rooms that nobody types."""
    own = name.removeprefix("dlens.show.").removeprefix("report.page.")
    return own if own != name or name.count(".") <= 2 else name.rpartition(".")[2]


def _said(name: str) -> str:
    """What a name's docstring says first."""
    first = (getattr(locate(name), "__doc__", None) or "").strip().split("\n\n")[0]
    return " ".join(first.split()).rstrip(".")


def main() -> None:
    """Write the lists anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(_START) + len(_START)], text[text.index(_END) :]
    PAGE.write_text(before + index() + after, encoding="utf-8")


if __name__ == "__main__":
    main()

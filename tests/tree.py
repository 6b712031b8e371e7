"""The tree in CONTRIBUTING.md, made from the first line of every module: `python -m tests.tree` writes it anew."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
_TREE = re.compile(r"(?<=```\n)dlens/\n.*?(?=```)", re.DOTALL)
_COLUMN, _WIDTH = 32, 120


def tree() -> str:
    """Every folder and file of the package with what its docstring says first."""
    return "dlens/\n" + "".join(f"{line}\n" for line in _lines(ROOT / "dlens", 1))


def written() -> str:
    """The tree as the page has it."""
    match = _TREE.search(PAGE.read_text(encoding="utf-8"))
    return match[0] if match else ""


def _lines(folder: Path, depth: int) -> Iterator[str]:
    for path in sorted(folder.glob("*.py")):
        if path.name not in ("__init__.py", "__main__.py"):
            yield _line(path.name, path, depth)
    for room in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield _line(f"{room.name}/", room / "__init__.py", depth)
        yield from _lines(room, depth + 1)


def _line(name: str, path: Path, depth: int) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    head = f"{'  ' * depth}{name}".ljust(_COLUMN)
    words = " ".join(said.split("\n\n")[0].split()).rstrip(".")
    while len(head) + len(words) > _WIDTH:
        words = _shorter(words)
    return f"{head}{words}".rstrip()


def _shorter(words: str) -> str:
    """Without its last clause, or its last word where it has but one."""
    clauses = re.split(r"[,:;.] ", words)
    return words[: -len(clauses[-1]) - 2] if len(clauses) > 1 else words.rsplit(" ", 1)[0]


if __name__ == "__main__":
    PAGE.write_text(_TREE.sub(lambda _: tree(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The examples of the README and of the pages run as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.findings.layers.profile import profile
from tests import api_index
from tests.tree import tree, written

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/index.md",
    "docs/questions.md",
    "docs/measures.md",
    "docs/profiles.md",
    "docs/skipping.md",
    "docs/findings.md",
    "docs/tasks.md",
    "docs/trio.md",
    "docs/widgets.md",
    "docs/concepts.md",
    "docs/caches.md",
    "docs/decoding.md",
    "docs/models.md",
    "docs/migration.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "howto").glob("*.md")),
]


PROFILES: dict[str, dlens.Profile] = {}


def profiled_once(source: Any, *args: Any, **kwargs: Any) -> dlens.Profile:
    """Profile a shipped model on shipped text once for all pages, as several of them do."""
    if not isinstance(source, str) or args or kwargs:
        return profile(source, *args, **kwargs)
    if source not in PROFILES:
        PROFILES[source] = profile(source)
    return PROFILES[source]


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dlens, "profile", profiled_once)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "page"}
    exec("import dlens", names)
    for number, block in enumerate(blocks):
        # In a file, as nnsight reads the source of a `with` block.
        file = tmp_path / f"block_{number}.py"
        file.write_text(block, encoding="utf-8")
        exec(compile(block, str(file), "exec"), names)


def test_the_tree_is_the_tree() -> None:
    assert written() == tree(), "run `python -m tests.tree`"


def test_the_index_of_the_api_is_that_of_its_pages() -> None:
    assert api_index.written() == api_index.index(), "run `python -m tests.api_index`"

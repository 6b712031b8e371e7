"""The tutorials run from top to bottom, without a word on stderr, and leave what a static page can show."""

import re
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tutorials.build import FIGURE, WIDGET, complaints, executed

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "tutorials").glob("[0-9]*.py"))


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The rich outputs of all cells."""
    return [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_tutorials_run(script: Path) -> None:
    notebook = executed(script, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    assert complaints(notebook) == []
    shown = outputs(notebook)
    widgets = [data for data in shown if WIDGET in data]
    pictures = [data for data in shown if "data-dlens-picture" in data.get("text/html", "")]
    assert widgets or any(FIGURE in data for data in shown)
    assert len(pictures) == len(widgets)
    assert "widgets" not in notebook.metadata


def test_tutorials_are_numbered_without_gaps() -> None:
    assert [path.name[:2] for path in SCRIPTS] == [f"{number}_" for number in range(1, len(SCRIPTS) + 1)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_tutorials_link_to_each_other(script: Path) -> None:
    linked = re.findall(r"\]\((\w+)\.ipynb\)", script.read_text(encoding="utf-8"))
    assert set(linked) <= {path.stem for path in SCRIPTS} - {script.stem}

"""Saved notebooks and static pages, without a kernel, still show each widget's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.widgets.notebooks import CELLS, built, check_pictures, notebook

ROOT = Path(__file__).parents[2]


def executed() -> Any:
    """A notebook of every widget, executed as a tutorial is."""
    import nbformat
    from nbclient import NotebookClient

    found = nbformat.from_dict(notebook(CELLS))
    NotebookClient(found, store_widget_state=False, timeout=120).execute()
    return found


def converted(executed: Any, folder: Path) -> Path:
    """The page that nbconvert makes of a notebook."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic").from_notebook_node(executed)
    (folder / "converted.html").write_text(f"<!DOCTYPE html><meta charset='utf-8'>{body}", encoding="utf-8")
    return folder / "converted.html"


def on_a_site(executed: Any, folder: Path) -> Path:
    """The page that mkdocs makes of it."""
    import nbformat

    (folder / "docs").mkdir()
    nbformat.write(executed, folder / "docs" / "index.ipynb")
    return built(folder) / "index.html"


def test_static_pages_show_pictures(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = executed()
    for make in (converted, on_a_site):
        page.goto(make(notebook, tmp_path).as_uri())
        check_pictures(page)

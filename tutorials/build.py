"""A tutorial as a notebook with its outputs: python tutorials/build.py tutorials/1_first_trace.py docs/tutorials."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

__all__ = ["build", "complaints", "executed"]

ROOT = Path(__file__).parents[1]
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
FIGURE, WIDGET = (
    "application/vnd.plotly.v1+json",
    "application/vnd.jupyter.widget-view+json",
)


def build(script: Path, folder: Path) -> Path:
    """Write a tutorial as an executed notebook whose figures and widgets also show on a static page, offline.

    Args:
        script: in jupytext's percent format.
        folder: where it goes, with plotly's script beside it for the page.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from plotly.offline import get_plotlyjs

    notebook = executed(script)
    _add_static_figures(notebook)
    _link_pages(notebook)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    nbformat.write(notebook, folder / f"{script.stem}.ipynb")
    return folder / f"{script.stem}.ipynb"


def executed(script: Path, kernel: AsyncKernelManager | None = None, **environment: str) -> NotebookNode:
    """A tutorial as a notebook, run from top to bottom in an empty folder.

    Args:
        script: in jupytext's percent format.
        kernel: what runs it, started if it is not running, and left so; all names in it are forgotten first. By
            default the tutorial has a kernel of its own.
        environment: variables for a kernel that is started, beside those of this process.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata["kernelspec"] = KERNEL
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        if kernel is not None:
            notebook.cells.insert(0, nbformat.v4.new_code_cell(f"__import__('os').chdir({folder!r})\n%reset -f"))
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=600,
            # Widgets whose state is stored show up empty on static pages; without it their plain picture does.
            store_widget_state=False,
            resources={"metadata": {"path": folder}},
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
        try:
            client.execute(env=os.environ | {"PYTHONPATH": path} | environment)
        finally:
            if kernel is not None and client.kc is not None:
                client.kc.stop_channels()
    if kernel is not None:
        del notebook.cells[0]
    _drop_progress_bars(notebook)
    return notebook


def complaints(notebook: NotebookNode) -> list[str]:
    """What an executed notebook wrote to stderr, warnings among it."""
    return [output.text for output in _outputs(notebook) if output.get("name") == "stderr"]


def _add_static_figures(notebook: NotebookNode) -> None:
    """Give each figure an HTML form; the first loads the script that all of a page need."""
    import plotly.io

    figures = [output.data for output in _outputs(notebook) if FIGURE in output.get("data", {})]
    for number, data in enumerate(figures):
        script: Any = False if number else "directory"
        data["text/html"] = plotly.io.to_html(data[FIGURE], include_plotlyjs=script, full_html=False, validate=False)


def _link_pages(notebook: NotebookNode) -> None:
    """Let links to other tutorials lead to their pages."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(\]\([^)]+)\.ipynb\)", r"\1.html)", cell.source)


def _drop_progress_bars(notebook: NotebookNode) -> None:
    """Take out the widgets that have no plain picture: bars of work that is done."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _lasts(output.get("data", {}))]


def _lasts(data: NotebookNode) -> bool:
    return WIDGET not in data or "text/html" in data


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), Path(sys.argv[2])))

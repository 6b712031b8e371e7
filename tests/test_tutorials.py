"""The tutorials run from top to bottom, without a word on stderr, and leave what a static page can show."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient.util import run_sync
from nbformat import NotebookNode

from tests.widgets.notebooks import built
from tutorials.build import FIGURE, WIDGET, build, complaints, executed

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "tutorials").glob("[0-9]*.py"), key=lambda path: int(path.name.split("_")[0]))
WIDGETS = re.compile(r"\bdlens\.widgets\.[A-Z]\w*\(")
SHORT = """# %% [markdown]
# # Short
#
# The page [itself](index.ipynb).

# %%
import dlens
import dlens.widgets
from dlens.show.figures import cosine_by_layer

record = dlens.trace("trio/diffusion").measure(dlens.Cosine()).generate("Once upon a time", 2)
cosine_by_layer([record])

# %%
cosine_by_layer([record])

# %%
dlens.widgets.Denoising(record)
"""


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The rich outputs of all cells."""
    return [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One kernel for all tutorials, as importing everything takes longer than most of them."""
    kernel = AsyncKernelManager(kernel_name="python3", transport_encryption="auto")
    yield kernel
    run_sync(kernel.shutdown_kernel)(now=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_tutorials_run(script: Path, kernel: AsyncKernelManager) -> None:
    notebook = executed(script, kernel, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    assert complaints(notebook) == []
    shown = outputs(notebook)
    widgets = [data for data in shown if WIDGET in data]
    pictures = [data for data in shown if "data-dlens-picture" in data.get("text/html", "")]
    assert widgets or any(FIGURE in data for data in shown)
    assert len(pictures) == len(widgets) == len(WIDGETS.findall(script.read_text(encoding="utf-8")))
    assert "widgets" not in notebook.metadata


def test_tutorials_are_numbered_without_gaps() -> None:
    assert [path.name.split("_")[0] for path in SCRIPTS] == [str(number) for number in range(1, len(SCRIPTS) + 1)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_tutorials_link_to_each_other(script: Path) -> None:
    linked = re.findall(r"\]\((\w+)\.ipynb\)", script.read_text(encoding="utf-8"))
    assert set(linked) <= {path.stem for path in SCRIPTS} - {script.stem}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_fences_are_whole(script: Path) -> None:
    for cell in jupytext.read(script, fmt="py:percent").cells:
        if cell.cell_type == "markdown":
            for code in fenced(cell.source):
                compile(code, script.name, "exec")


def fenced(markdown: str) -> list[str]:
    """The Python blocks of a cell, where each fence stands on a line of its own and is closed."""
    lines = markdown.splitlines()
    fences = [number for number, line in enumerate(lines) if "```" in line]
    assert [lines[number] for number in fences if not re.fullmatch(r"```(\w+)?", lines[number])] == []
    assert len(fences) % 2 == 0
    blocks = list(zip(fences[::2], fences[1::2], strict=True))
    assert [lines[last] for _, last in blocks if lines[last] != "```"] == []
    return ["\n".join(lines[first + 1 : last]) for first, last in blocks if lines[first] == "```python"]


def test_built_pages_draw_figures_and_widgets(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "index.py").write_text(SHORT, encoding="utf-8")
    assert build(tmp_path / "index.py", tmp_path / "docs") == tmp_path / "docs" / "index.ipynb"
    address = (built(tmp_path) / "index.html").as_uri()
    page.goto(address)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert page.locator(".js-plotly-plot:has(.scatterlayer path)").count() == 2
    assert page.locator("script[src$='plotly.min.js']").count() == 1
    page.locator("[data-dlens-picture]").wait_for()
    assert page.get_by_role("link", name="itself").evaluate("(link) => link.href") == address

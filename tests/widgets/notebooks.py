"""Notebooks that show the widgets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

IMPORTS = "import dlens, dlens.widgets\n"
CELLS = {
    "denoising": """trace = dlens.trace("trio/diffusion").measure(dlens.TopTokens())
widget = dlens.widgets.Denoising(trace.generate("Once upon a time", 4))
widget.step = 3
widget""",
    "collapse": 'dlens.widgets.LayerCollapse("trio/diffusion", max_new_tokens=4)',
    "recency": 'dlens.widgets.TokenRecency({"AR": "trio/ar"}, max_new_tokens=4)',
    "planner": """widget = dlens.widgets.SkipPlanner("trio/ar", n=2, texts=["Once upon a time"], max_new_tokens=2)
widget.wait()
widget""",
}
PICTURES = {
    "denoising": "Denoising: tokens coloured by the step that committed them, dark first",
    "collapse": "Layer collapse",
    "recency": "Token recency",
    "planner": "Skip planner: brighter blocks change the stream less",
}
SITE = """
site_name: widgets
use_directory_urls: false
theme: {name: material, font: false}
plugins: [{mkdocs-jupyter: {execute: false}}]
"""
# How many colours a picture has; mere words have one.
COLOURS = """(figure) => new Set([...figure.querySelectorAll("i, span")].filter((each) => each.offsetWidth)
    .map((each) => getComputedStyle(each).backgroundColor)).size"""


def notebook(names: Iterable[str], kernel: str = "python3", language: str = "python") -> dict[str, Any]:
    """A notebook with a cell for each of these widgets.

    Args:
        names: of `CELLS`.
        kernel, language: what the file asks for; with an unknown language JupyterLab starts none by itself.
    """
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [empty | {"id": name, "source": IMPORTS + CELLS[name]} for name in names]
    wanted = {"name": kernel, "display_name": kernel, "language": language}
    about = {"kernelspec": wanted, "language_info": {"name": language}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": cells}


def built(folder: Path) -> Path:
    """The folder of the pages that mkdocs makes, strictly, of the notebooks in folder/docs."""
    (folder / "mkdocs.yml").write_text(SITE, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def check_pictures(place: Any, names: Iterable[str] = PICTURES) -> None:
    """Each widget's picture is in sight, in colours.

    Args:
        place: a page, or a part of one.
        names: of the widgets.
    """
    for name in names:
        # By its heading, as JupyterLab takes roles and labels out of notebooks that it does not trust.
        figure = place.locator("div:has(> p > b)", has_text=PICTURES[name]).last
        figure.wait_for()
        assert figure.evaluate(COLOURS) > 2, name
        assert figure.bounding_box()["height"] > 100, name

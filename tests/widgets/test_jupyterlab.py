"""Every widget in one real JupyterLab, with a real kernel behind it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.browser import outside

ROOT = Path(__file__).parents[2]
CELLS = {
    "denoising": """import dlens, dlens.widgets
        trace = dlens.trace("trio/diffusion").measure(dlens.TopTokens())
        dlens.widgets.Denoising(trace.generate("Once upon a time", 4))""",
    "collapse": 'dlens.widgets.LayerCollapse("trio/diffusion", max_new_tokens=4)',
    "recency": 'dlens.widgets.TokenRecency({"AR": "trio/ar"}, max_new_tokens=4)',
    "planner": 'dlens.widgets.SkipPlanner("trio/ar", n=2, texts=["Once upon a time"], max_new_tokens=2)',
}


def notebook() -> dict[str, Any]:
    """The cells as a notebook file."""
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    sources = ["\n".join(line.strip() for line in cell.splitlines()) for cell in CELLS.values()]
    cells = [empty | {"id": name, "source": source} for name, source in zip(CELLS, sources, strict=True)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab that shows the notebook."""
    # JupyterLab brings dozens of packages, so it is not among the test requirements.
    if find_spec("jupyterlab") is None:
        pytest.skip("no JupyterLab; pip install jupyterlab")
    (tmp_path / "widgets.ipynb").write_text(json.dumps(notebook()), encoding="utf-8")
    # Cells out of sight are on the page, too.
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}', encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
        f"--notebook-dir={tmp_path}",
    ]
    options += [
        f"--LabApp.user_settings_dir={tmp_path / 'settings'}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
        try:
            yield _answering(f"http://127.0.0.1:{port}", server, tmp_path / "log")
        finally:
            server.terminate()
            server.wait(20)


def _answering(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            urlopen(f"{address}/api", timeout=5).close()
            return address
        except URLError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def run_all(page: Any) -> None:
    """Run all cells; once more where the menu was not ready."""
    from playwright.sync_api import Error

    started = page.locator(".jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]")).first
    for _ in range(3):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        try:
            started.wait_for(timeout=5_000)
            return
        except Error:
            page.keyboard.press("Escape")
    raise AssertionError("no cell began to run")


def test_every_widget_works_in_a_notebook(lab: str, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 1200, "height": 1200})
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("request", lambda request: problems.extend(outside(request.url)))
    page.goto(f"{lab}/lab/tree/widgets.ipynb")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    run_all(page)

    page.locator(".dlens.denoising").get_by_label("Step", exact=True).fill("4")
    page.locator(".dlens.denoising").get_by_text("finished, 4 steps").wait_for()
    page.locator(".dlens.denoising .tokens span").first.click()
    page.locator(".dlens.denoising").get_by_role("heading", name="position 0, predicted").wait_for()

    page.locator(".dlens.collapse").get_by_label("Layer", exact=True).select_option("3")
    page.locator(".dlens.collapse").get_by_role("heading", name="after layer 3").wait_for()

    page.locator(".dlens.recency").get_by_label("Layer", exact=True).fill("2")
    page.locator(".dlens.recency").get_by_text("2 (0 to 15)").wait_for()

    planner = page.locator(".dlens.planner")
    planner.locator("[data-layer='3']").click()
    planner.get_by_role("button", name="take plan 3").wait_for()
    page.close()
    assert problems == []

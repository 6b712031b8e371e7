"""Every widget in a notebook of its own in one real JupyterLab: with a real kernel behind it, and without one."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.browser import outside
from tests.widgets.notebooks import CELLS, PICTURES, check_pictures, notebook

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab that shows a notebook for each widget."""
    for name in CELLS:
        write(tmp_path / f"{name}.ipynb", notebook([name]))
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
        "--ServerApp.disable_check_xsrf=True",
        f"--notebook-dir={tmp_path}",
        f"--LabApp.user_settings_dir={tmp_path / 'settings'}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
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


def write(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook file."""
    path.write_text(json.dumps(notebook), encoding="utf-8")


def post(address: str, given: dict[str, Any]) -> dict[str, Any]:
    """Ask the server for something, and its answer."""
    request = Request(address, json.dumps(given).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def share_a_kernel(address: str) -> None:
    """Start one kernel for all notebooks, as starting one takes seconds."""
    kernel = post(f"{address}/api/kernels", {"name": "python3"})
    for name in CELLS:
        session = {"path": f"{name}.ipynb", "name": name, "type": "notebook", "kernel": {"id": kernel["id"]}}
        post(f"{address}/api/sessions", session)


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


def denoising(widget: Any) -> None:
    """Step and token."""
    widget.get_by_label("Step", exact=True).fill("4")
    widget.get_by_text("finished, 4 steps").wait_for()
    widget.locator(".tokens span").first.click()
    widget.get_by_role("heading", name="position 0, predicted").wait_for()


def collapse(widget: Any) -> None:
    """A layer."""
    widget.get_by_label("Layer", exact=True).select_option("3")
    widget.get_by_role("heading", name="after layer 3").wait_for()


def recency(widget: Any) -> None:
    """A layer."""
    widget.get_by_label("Layer", exact=True).fill("2")
    widget.get_by_text("2 (0 to 15)").wait_for()


def planner(widget: Any) -> None:
    """A plan, measured."""
    widget.locator("[data-layer='3']").click()
    widget.get_by_role("button", name="take plan 3").wait_for()


DRIVE: dict[str, Callable[[Any], None]] = {
    "denoising": denoising,
    "collapse": collapse,
    "recency": recency,
    "planner": planner,
}

CLASSES = {"collapse": "channels"}
"""The class of a widget's root, where it is not its name."""


def without_kernel(folder: Path) -> None:
    """Put the saved notebooks' cells into two that ask for a kernel which is not there, one of them trusted."""
    import nbformat
    from nbformat.sign import NotebookNotary

    cells = [json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"][0] for name in CELLS]
    for name in ("trusted", "untrusted"):
        write(folder / f"{name}.ipynb", notebook([], name, name) | {"cells": cells})
    trusted = nbformat.read(folder / "trusted.ipynb", as_version=4)
    NotebookNotary(data_dir=str(folder / "data")).sign(trusted)


def test_every_widget_works_and_leaves_its_picture(lab: str, chromium: Any, tmp_path: Path) -> None:
    page = chromium.new_page(viewport={"width": 1200, "height": 1200})
    page.set_default_timeout(60_000)
    problems: list[str] = []
    page.on("request", lambda request: problems.extend(outside(request.url)))
    share_a_kernel(lab)
    for name, drive in DRIVE.items():
        page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        run_all(page)
        drive(page.locator(f".dlens.{CLASSES.get(name, name)}"))
        # The picture is there, and out of sight while the widget is in its place.
        assert page.locator(f"[aria-label='{PICTURES[name]}']").is_hidden()
        with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
            page.keyboard.press("Control+s")

    without_kernel(tmp_path)
    for name in ("trusted", "untrusted"):
        page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb")
        page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()
        check_pictures(page)
    page.close()
    assert problems == []

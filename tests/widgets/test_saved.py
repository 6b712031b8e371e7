"""Saved notebooks and static pages, without a kernel, still show each widget's picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.widgets import Denoising, Heads, LayerCollapse, SkipPlanner, TokenRecency
from tests.browser import faults
from tests.widgets.notebooks import CELLS, built, check_pictures, notebook
from tests.widgets.records import WILD, check_no_markup, denoised, layered, top_tokens, turning

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


def alone(page: Any, widget: Any, folder: Path) -> Any:
    """The widget's own file, opened."""
    page.goto(widget.save_html(folder / "widget.html").as_uri())
    page.locator(".dlens").wait_for()
    return page


def test_a_run_is_explored_without_a_kernel(page: Any, tmp_path: Path) -> None:
    other = denoised(3, plan=({"op": "skip", "words": "skip layers 1"},))
    widget = Denoising(denoised(3, measures={"t": top_tokens(3, 2, 4)}), other)
    alone(page, widget, tmp_path)
    page.get_by_text("finished, 3 steps").wait_for()
    page.get_by_role("heading", name="position 1, predicted at step 0, layer 1").first.wait_for()
    page.get_by_label("Step", exact=True).fill("2")
    page.locator("[data-position='3']").first.click()
    page.get_by_role("heading", name="position 3, predicted at step 2, layer 1").first.wait_for()
    page.get_by_text("75.0 %").first.wait_for()
    page.get_by_role("button", name="show layer 0").click()
    page.get_by_text("50.0 %").first.wait_for()
    page.get_by_role("heading", name="First choice of every layer (logit lens) at step 2").wait_for()
    page.get_by_text("The record holds no alternatives").wait_for()
    page.get_by_role("button", name="Play").click()
    page.get_by_text("finished, 3 steps").wait_for()
    assert widget.step == 3 and faults(page) == []


def test_rows_of_a_batch_are_in_the_file(page: Any, tmp_path: Path) -> None:
    widget = Denoising(denoised(3, final=torch.tensor([[0, 1, 2, 3], [0, 3, 3, 3]])))
    alone(page, widget, tmp_path)
    assert page.locator(".tokens").inner_text() == "Once upon a fox"
    page.get_by_label("Row", exact=True).select_option("1")
    page.wait_for_function("document.querySelector('.tokens').innerText === 'Once fox fox fox'")
    assert widget.row == 0


def test_layers_and_channels_are_explored_without_a_kernel(page: Any, tmp_path: Path) -> None:
    widget = LayerCollapse(layered())
    before = (widget.kind, widget.channel, widget.layer, widget.message)
    alone(page, widget, tmp_path)
    page.get_by_label("Similarity", exact=True).select_option("cka")
    page.get_by_role("heading", name="Similarity of layers (CKA)").wait_for()
    page.get_by_label("Layer", exact=True).select_option("2")
    page.get_by_role("heading", name="after layer 2").wait_for()
    assert page.get_by_text("This page does not hold").is_hidden()
    assert (widget.kind, widget.channel, widget.layer, widget.message) == before


def test_tokens_are_explored_without_a_kernel(page: Any, tmp_path: Path) -> None:
    alone(page, TokenRecency({"one": turning(), "two": turning(steps=1)}), tmp_path)
    page.get_by_label("Layer", exact=True).fill("0")
    page.get_by_role("heading", name="one, layer 0, step 0").wait_for()
    page.get_by_label("Step", exact=True).fill("1")
    page.get_by_role("heading", name="one, layer 0, step 1").wait_for()
    page.get_by_label("Tokens of").select_option("1")
    page.get_by_role("heading", name="one, layer 0, step 0").wait_for()
    assert page.get_by_text("This page does not hold").is_hidden()


def test_heads_are_explored_without_a_kernel(page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    alone(page, Heads(dlens.trace(ar).capture("pattern", layers=[0, 1]).forward("Once upon a time")), tmp_path)
    page.get_by_label("patterns of every head").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("heading", name="Layer 1, head 0, step 0").wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Layer 1, head 1, step 0").wait_for()
    assert page.get_by_role("button", name="Ablate").count() == 0


def test_plans_are_explored_without_a_kernel(page: Any, tmp_path: Path, ar: dlens.Model) -> None:
    widget = SkipPlanner(ar, n=2, texts=["Once upon a time"], max_new_tokens=2, live=False)
    assert widget.wait(60)
    found = {"plan": [2], "part": "block", "steps": None}
    found |= {"flops_saved": 0.1, "baseline_loss": 2.0, "loss": 2.25, "baseline": 0.5, "accuracy": 0.5}
    found |= {"n": 2, "low": 0.1, "high": 0.9, "retained": 1.0, "retained_low": None, "retained_high": None}
    widget.history = [found]
    alone(page, widget, tmp_path)
    page.locator("[data-layer='2']").click()
    page.get_by_text("1 of 2 solved, 1 of 2 solved as it is; 2 of 2 problems").wait_for()
    page.locator("[data-layer='3']").click()
    page.get_by_text("this plan was not measured").first.wait_for()
    page.get_by_label("Part").select_option("mlp")
    page.wait_for_function("document.querySelector('.code').value.includes('mlp')")
    assert page.locator(".code").input_value() == 'dlens.trace("trio/ar").skip([2, 3], part="mlp")'
    assert page.get_by_role("button", name="Measure").count() == 0


def test_tokens_in_a_file_are_text(page: Any, tmp_path: Path) -> None:
    given = denoised(3, final=torch.tensor([[0, 5, 6, 7]]), model=f"model {WILD}</script><b>")
    alone(page, Denoising(given), tmp_path)
    page.wait_for_function("document.querySelector('.tokens').innerText.includes('<b>bold</b>')")
    check_no_markup(page)

from typing import Any

import numpy as np
import pytest
import traitlets

import dlens
from dlens.widgets import Heads
from tests.browser import Shown

TEXT = "Once upon a time there was a fox"


@pytest.fixture(scope="module")
def patterns(diffusion: dlens.Model) -> Any:
    """A denoising run with the patterns of two steps."""
    return dlens.trace(diffusion).capture("pattern", steps=[0, 3]).generate(TEXT, 4)


def test_a_record_is_shown_and_not_run(patterns: Any) -> None:
    widget = Heads(patterns)
    assert widget.layers == list(range(16)) and widget.heads == 3 and widget.steps == [0, 3]
    assert widget.thumbnails["shape"] == [16, 3, 12, 12]
    widget.layer, widget.head, widget.step = 4, 1, 3
    held = np.frombuffer(widget.pattern["data"], "<f4").reshape(widget.pattern["shape"])
    np.testing.assert_array_equal(held, patterns["pattern"][1, 4, 0, 1])
    assert [widget.pattern[name] for name in ("layer", "head", "step")] == [4, 1, 3]
    widget.off = [[4, 1], [2, 0], [4, 1]]
    assert widget.off == [[2, 0], [4, 1]] and "run the line of Python" in widget.status
    with pytest.raises(ValueError, match="Heads of a record has no model"):
        _ = widget.trace


def test_what_there_is_not_becomes_the_nearest(patterns: Any) -> None:
    widget = Heads(patterns)
    widget.layer, widget.head = 99, 7
    assert (widget.layer, widget.head, widget.message) == (15, 2, "There is no head 7: head 2 is shown.")
    assert widget.message in widget.html()
    with pytest.raises(traitlets.TraitError, match="head 3 of layer 0; expected 0 to 2 of layers 0 to 15"):
        widget.off = [[0, 3]]


def test_heads_that_are_off_are_ablated(ar: dlens.Model) -> None:
    widget = Heads(ar, prompt=TEXT, max_new_tokens=4)
    every = [[layer, head] for layer in range(4) for head in range(3)]
    widget.off = every
    assert widget.wait(120) and widget.status == ""
    chain = dlens.trace(ar)
    for layer in range(4):
        chain = chain.ablate(layer, at="z", heads=[0, 1, 2])
    assert [text for _, text in widget.texts] == [run.generate(TEXT, 4).text[0] for run in (dlens.trace(ar), chain)]
    assert str(widget.trace) == str(chain) and widget.code.endswith(".ablate(3, at='z', heads=[0, 1, 2])")
    widget.off = []
    assert widget.wait(120) and len(widget.texts) == 1


def test_clicks_and_keys_reach_python_and_the_picture(page: Any, patterns: Any) -> None:
    shown = Shown(page, Heads(patterns))
    page.get_by_label("patterns of every head").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.get_by_text("Layer 1, head 1, step 0").wait_for()
    assert (shown.widget.layer, shown.widget.head) == (1, 1)
    page.get_by_label("pattern of one head").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text('query 0 "Once" takes').wait_for()
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("3, 25 % masked").wait_for()
    page.get_by_role("button", name="Ablate this head").click()
    page.get_by_role("button", name="Put this head back").wait_for()
    assert shown.widget.off == [[1, 1]]

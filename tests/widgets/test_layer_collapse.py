from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.measures import CosinePairs
from dlens.tracing.step.collect import Captured
from dlens.widgets import LayerCollapse, TokenRecency
from dlens.widgets.layer_collapse_numbers import (
    by_step,
    measured_shares,
    measured_similarity,
    share_of,
    similarity,
    steps_of,
    stream,
)
from dlens.widgets.sources import opening
from tests.browser import Shown
from tests.refusing import assert_three_parts
from tests.widgets.records import MASK, captured, check_no_markup, record

TEXT = "Once upon a time there was a fox who lived in a house"


def run(
    steps: int = 2, layers: int = 3, positions: int = 6, channels: int = 5, canvas: Any = None, **fields: Any
) -> Any:
    """A denoising run whose channel 3 grows with the layer, and is twice as large at position 2."""
    h = torch.randn(steps, layers, 1, positions, channels, generator=torch.Generator().manual_seed(0))
    h[..., 3] = 10 * (1 + torch.arange(layers))[None, :, None, None]
    h[..., 2:3, 3] *= 100
    canvas = _masked(steps, positions) if canvas is None else canvas
    tokens = torch.tensor([[0, *(1 + i % 3 for i in range(positions - 1))]])
    given = {"n_layers": layers, "captured": captured(h, tuple(range(steps))), "text": ["as it was"]}
    return record(tokens, canvas, **(given | fields))


def _masked(steps: int, positions: int) -> torch.Tensor:
    canvas = torch.full((steps, 1, positions), MASK)
    canvas[..., 0] = 0
    return canvas


@pytest.fixture(scope="module")
def forward(ar: dlens.Model) -> Any:
    """A forward with the stream, and with measures of it."""
    measures = (dlens.CKA(), dlens.CKA(drop=[3], name="without"), CosinePairs(), dlens.Outliers(top=3))
    return dlens.trace(ar).measure(*measures).capture("resid_post").forward(TEXT)


def test_the_stream_and_the_measures_agree(forward: Any) -> None:
    h, positions = stream(forward, 0, 0)
    assert positions == list(range(forward.tokens.shape[-1]))
    for kind, drop in (("cosine", None), ("cka", None), ("cka", 3)):
        expected = measured_similarity(forward, kind, drop)
        np.testing.assert_allclose(similarity(h, kind, drop), expected, atol=2e-5)
    assert measured_similarity(forward, "cosine", 3) is None
    channels, expected = measured_shares(forward)  # pyright: ignore
    energy = h.square().sum(1)
    np.testing.assert_allclose(energy[:, channels] / energy.sum(-1, keepdim=True), expected, rtol=1e-4)


def test_shares_of_a_token_and_of_a_step() -> None:
    given = run()
    h = stream(given, 0, 1)[0]
    torch.testing.assert_close(sum(share_of(h, channel) for channel in range(5)), torch.ones(3, 6))
    assert float(share_of(h, 3)[2, 2]) == pytest.approx(float(h[2, 2, 3] ** 2 / (h[2, 2] ** 2).sum()))
    found = by_step(given, 0, layer=2, channel=3)
    assert [step for step, _ in found] == [0, 1]
    assert found[1][1] == pytest.approx(float((h[2, :, 3] ** 2).sum() / (h[2] ** 2).sum()))


def test_padding_is_left_out() -> None:
    pad = torch.zeros(1, 6, dtype=torch.bool)
    pad[:, :2] = True
    assert stream(run(is_pad=pad), 0, 0)[1] == [2, 3, 4, 5]


def test_state_follows_the_choice() -> None:
    widget = LayerCollapse(run())
    assert widget.channels[0] == widget.channel == 3 and widget.steps == [0, 1]
    widget.layer, widget.step = 2, 1
    assert widget.detail["tokens"][0][:2] == [2, "<|mask|>"]
    before = widget.similarity
    widget.without = True
    assert widget.similarity != before
    widget.step, widget.layer, widget.channel = 7, 99, 4
    assert (widget.step, widget.layer, widget.channel) == (1, 2, min(widget.channels, key=lambda c: abs(c - 4)))


def test_what_was_corrected_is_said() -> None:
    widget = LayerCollapse(run())
    assert widget.message == ""
    for name, shown in (("layer", 2), ("layer_b", 2), ("step", 1), ("position", 5)):
        setattr(widget, name, 99)
        assert (getattr(widget, name), widget.message) == (shown, f"There is no {name} 99: {name} {shown} is shown.")
        assert widget.message in widget.html()
        setattr(widget, name, 99)
        assert widget.message
        setattr(widget, name, 0)
        assert (getattr(widget, name), widget.message) == (0, "")
    widget.layer = 99
    widget.kind = "cka"
    assert widget.message == ""


def test_a_run_that_is_not_there_is_not_shown_as_ablated() -> None:
    widget = LayerCollapse(run())
    widget.ablated = True
    assert not widget.can_ablate and not widget.ablated
    assert "no run with the channel ablated" in widget.message and "other=" in widget.message
    both = LayerCollapse(run(), run(text=["another text"]))
    both.ablated = True
    assert both.ablated and both.message == "" and both.texts["ablated"] == "another text"


def test_a_correction_stands_before_what_cka_needs() -> None:
    widget = LayerCollapse(run(steps=1, layers=2, positions=2))
    widget.kind = "cka"
    widget.layer = 9
    assert widget.message.startswith("There is no layer 9: layer 1 is shown. CKA needs at least four")


def test_some_layers_are_named() -> None:
    given = run(layers=3)
    part = Captured(
        given.captured["resid_post"].values[:, [0, 2]],
        given.captured["resid_post"].dims,
        (0, 2),
        (0, 1),
        tuple(range(6)),
    )
    with pytest.raises(ValueError) as caught:
        LayerCollapse(replace(given, captured={"resid_post": part}))
    assert_three_parts(str(caught.value), "holds resid_post of layers 0, 2 and no measure")
    assert "expected resid_post of all 3 layers" in str(caught.value)
    with pytest.raises(ValueError) as caught:
        TokenRecency(replace(given, captured={"resid_post": part}))
    assert_three_parts(str(caught.value), "holds resid_post of layers 0, 2 and no recency")
    with pytest.raises(ValueError) as caught:
        stream(given, 0, 5)
    assert_three_parts(str(caught.value), "at step 5 is not in the record, which holds resid_post of layers 0, 1, 2")


def test_measures_alone_show_what_they_can(forward: Any) -> None:
    alone = record(forward.tokens, n_layers=forward.n_layers, measures=forward.measures)
    widget = LayerCollapse(alone)
    assert steps_of(alone) == () and widget.similarity["shape"] == [forward.n_layers] * 2 and widget.detail == {}
    widget.without = True
    assert not widget.similarity and f"drop=[{widget.channel}]" in widget.message
    assert f"drop=[{widget.channel}]" in widget.html()


def test_bad_input_says_what_to_capture() -> None:
    with pytest.raises(ValueError, match="capture\\('resid_post'"):
        LayerCollapse(record(torch.tensor([[0, 1]])))
    with pytest.raises(ValueError, match="expected some"):
        LayerCollapse(record(torch.zeros(1, 0, dtype=torch.long)))
    with pytest.raises(IndexError, match="row 2 of 1"):
        LayerCollapse(run(), row=2)
    with pytest.raises(ValueError, match="steps=\\[5\\]"):
        stream(run(), 0, 5)


def test_few_positions_say_that_cka_needs_more() -> None:
    widget = LayerCollapse(run(steps=1, layers=1, positions=2))
    widget.kind = "cka"
    assert "at least four positions" in widget.message
    assert widget.similarity["shape"] == [1, 1]


def test_a_model_is_run_and_run_again_without_the_channel(diffusion: dlens.Model) -> None:
    widget = LayerCollapse(diffusion, max_new_tokens=4)
    plain = widget.similarity
    assert widget.can_ablate and widget.texts["plain"] and not widget.texts["ablated"]
    widget.ablated = True
    assert widget.wait(60) and widget.status == ""
    assert widget.similarity != plain
    ablated = dlens.trace(diffusion).ablate_outlier(channel=widget.channel)
    assert f"channel {widget.channel}" in widget.name
    assert widget.texts["ablated"] == ablated.generate(opening(), 4, progress=False).text[0]
    widget.ablated = False
    assert widget.similarity == plain


def test_an_error_in_the_background_is_told(diffusion: dlens.Model) -> None:
    widget = LayerCollapse(dlens.trace(diffusion).skip([2]), max_new_tokens=2)
    widget._run = (widget._run[0], [], 2)  # pyright: ignore
    widget.ablated = True
    assert widget.wait(60) and "Error" in widget.status


def test_the_fallback_escapes_tokens() -> None:
    tokens = torch.tensor([[0, 5, 6, 1, 2, 3]])
    html = LayerCollapse(run(canvas=tokens[None].repeat(2, 1, 1)))._repr_mimebundle_()[0]["text/html"]
    assert "role='img'" in html and "channel 3" in html
    assert "<script" not in html and "&lt;script&gt;" in html


def test_clicks_and_keys_reach_python_and_the_picture(page: Any) -> None:
    shown = Shown(
        page, LayerCollapse(run(), run(text=["another text"], plan=({"op": "ablate", "words": "ablate channel 3"},)))
    )
    widget = shown.widget
    pairs = page.get_by_label("similarity of every two layers")
    pairs.focus()
    page.keyboard.press("ArrowDown")
    page.get_by_text("layers 1 and 1: cosine 1", exact=True).wait_for()
    assert (widget.layer, widget.layer_b) == (1, 1)
    box = pairs.bounding_box()
    pairs.click(position={"x": box["width"] - 20, "y": 20})
    page.get_by_text("layers 0 and 2: cosine").wait_for()
    assert (widget.layer, widget.layer_b) == (0, 2)
    page.get_by_label("Similarity", exact=True).select_option("cka")
    page.get_by_text("layers 0 and 2: CKA").wait_for()
    page.get_by_label("leave out channel 3").check()
    page.get_by_text("without channel 3)").wait_for()
    assert widget.without and widget.kind == "cka"
    page.get_by_label("Channel", exact=True).select_option("4")
    page.get_by_role("heading", name="Channel 4 after layer 0").wait_for()
    page.get_by_role("button", name="Show made up: ablate channel 3").click()
    page.get_by_text("another text").wait_for()
    assert widget.ablated
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("1 (2 of 2 captured)").wait_for()
    assert widget.step == 1


def test_the_tokens_of_a_place(page: Any) -> None:
    shown = Shown(page, LayerCollapse(run()))
    page.get_by_label("share of the channel by layer and token").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.get_by_text("layer 1, position 1").wait_for()
    assert (shown.widget.layer, shown.widget.position) == (1, 1)
    page.get_by_role("button", name="go to position 2").click()
    page.get_by_text("layer 1, position 2").wait_for()
    page.get_by_text("The numbers").first.click()
    page.locator("details[open] tbody tr").nth(2).wait_for()
    assert page.locator("details[open] tbody tr").count() == 3


def test_many_positions_are_grouped_and_said_so(page: Any) -> None:
    shown = Shown(page, LayerCollapse(run(steps=1, layers=2, positions=1100)))
    assert shown.widget.group == 3 and shown.widget.token_shares["shape"] == [2, 367]
    page.get_by_text("Each column is the mean of 3 positions.").wait_for()


def test_tokens_are_text(page: Any) -> None:
    tokens = torch.tensor([[0, 5, 6, 7, 2, 3]])
    shown = Shown(page, LayerCollapse(run(canvas=tokens[None].repeat(2, 1, 1), text=["<img src=x>"])))
    shown.set(position=3)
    page.get_by_text("<script>alert(1)</script>").first.wait_for()
    page.get_by_text("onerror").first.wait_for()
    check_no_markup(page)


def test_one_layer_and_one_step(page: Any) -> None:
    Shown(page, LayerCollapse(run(steps=1, layers=1)))
    page.get_by_text("layers 0 and 0: cosine 1", exact=True).wait_for()
    page.get_by_label("similarity of every two layers").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_text("layers 0 and 0: cosine 1", exact=True).wait_for()


def test_ten_thousand_tokens_are_grouped_and_thinned(page: Any) -> None:
    shown = Shown(page, LayerCollapse(run(steps=1, layers=2, positions=10_000)))
    page.get_by_text("Each column is the mean of 20 positions.").wait_for()
    page.get_by_label("Similarity", exact=True).select_option("cka")
    page.get_by_text("CKA of 512 of the 10000 positions, evenly apart.").wait_for()
    assert shown.widget.similarity["shape"] == [2, 2]

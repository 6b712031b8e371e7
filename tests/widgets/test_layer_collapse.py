from dataclasses import replace
from typing import Any

import pytest
import torch

import dlens
from dlens.tracing.step.collect import Captured
from dlens.widgets import LayerCollapse, TokenRecency
from dlens.widgets.layer_collapse_numbers import (
    steps_of,
    stream,
)
from dlens.widgets.sources import opening
from tests.browser import Shown
from tests.refusing import assert_three_parts
from tests.widgets.records import WILD, check_escaped, check_no_markup, layered, record


def test_state_follows_the_choice() -> None:
    widget = LayerCollapse(layered())
    assert widget.channels[0] == widget.channel == 3 and widget.steps == [0, 1]
    widget.layer, widget.step = 2, 1
    assert widget.detail["tokens"][0][:2] == [2, "<|mask|>"]
    before = widget.similarity
    widget.without = True
    assert widget.similarity != before
    widget.step, widget.layer, widget.channel = 7, 99, 4
    assert (widget.step, widget.layer, widget.channel) == (1, 2, min(widget.channels, key=lambda c: abs(c - 4)))


def test_what_was_corrected_is_said() -> None:
    widget = LayerCollapse(layered())
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
    widget = LayerCollapse(layered())
    widget.ablated = True
    assert not widget.can_ablate and not widget.ablated
    assert "no run with the channel ablated" in widget.message and "other=" in widget.message
    both = LayerCollapse(layered(), layered(text=["another text"]))
    both.ablated = True
    assert both.ablated and both.message == "" and both.texts["ablated"] == "another text"


def test_a_correction_stands_before_what_cka_needs() -> None:
    widget = LayerCollapse(layered(steps=1, layers=2, positions=2))
    widget.kind = "cka"
    widget.layer = 9
    assert widget.message.startswith("There is no layer 9: layer 1 is shown. CKA needs at least four")


def test_some_layers_are_named() -> None:
    given = layered(layers=3)
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


def test_measures_alone_show_what_they_can(layers_read: Any) -> None:
    alone = record(layers_read.tokens, n_layers=layers_read.n_layers, measures=layers_read.measures)
    widget = LayerCollapse(alone)
    assert steps_of(alone) == () and widget.similarity["shape"] == [layers_read.n_layers] * 2 and widget.detail == {}
    widget.without = True
    assert not widget.similarity and f"drop=[{widget.channel}]" in widget.message
    assert f"drop=[{widget.channel}]" in widget.html()


def test_bad_input_says_what_to_capture() -> None:
    with pytest.raises(ValueError, match="capture\\('resid_post'"):
        LayerCollapse(record(torch.tensor([[0, 1]])))
    with pytest.raises(ValueError, match="expected some"):
        LayerCollapse(record(torch.zeros(1, 0, dtype=torch.long)))
    with pytest.raises(IndexError, match="row 2 of 1"):
        LayerCollapse(layered(), row=2)
    with pytest.raises(ValueError, match="steps=\\[5\\]"):
        stream(layered(), 0, 5)


def test_few_positions_say_that_cka_needs_more() -> None:
    widget = LayerCollapse(layered(steps=1, layers=1, positions=2))
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
    html = LayerCollapse(layered(canvas=tokens[None].repeat(2, 1, 1)))._repr_mimebundle_()[0]["text/html"]
    assert 'role="img"' in html and "channel 3" in html
    assert "<script" not in html and "&lt;script&gt;" in html


def test_the_fallback_escapes_the_model_and_the_tokens() -> None:
    canvas = torch.full((2, 1, 6), 8)
    check_escaped(LayerCollapse(layered(canvas=canvas, model=f"model {WILD}")).html(), "model ", "word")


def test_clicks_and_keys_reach_python_and_the_picture(page: Any) -> None:
    shown = Shown(
        page,
        LayerCollapse(layered(), layered(text=["another text"], plan=({"op": "ablate", "words": "ablate channel 3"},))),
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
    shown = Shown(page, LayerCollapse(layered()))
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
    shown = Shown(page, LayerCollapse(layered(steps=1, layers=2, positions=1100)))
    assert shown.widget.group == 3 and shown.widget.token_shares["shape"] == [2, 367]
    page.get_by_text("Each column is the mean of 3 positions.").wait_for()


def test_tokens_are_text(page: Any) -> None:
    tokens = torch.tensor([[0, 5, 6, 7, 2, 3]])
    shown = Shown(page, LayerCollapse(layered(canvas=tokens[None].repeat(2, 1, 1), text=["<img src=x>"])))
    shown.set(position=3)
    page.get_by_text("<script>alert(1)</script>").first.wait_for()
    page.get_by_text("onerror").first.wait_for()
    check_no_markup(page)


def test_one_layer_and_one_step(page: Any) -> None:
    Shown(page, LayerCollapse(layered(steps=1, layers=1)))
    page.get_by_text("layers 0 and 0: cosine 1", exact=True).wait_for()
    page.get_by_label("similarity of every two layers").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_text("layers 0 and 0: cosine 1", exact=True).wait_for()


def test_ten_thousand_tokens_are_grouped_and_thinned(page: Any) -> None:
    shown = Shown(page, LayerCollapse(layered(steps=1, layers=2, positions=10_000)))
    page.get_by_text("Each column is the mean of 20 positions.").wait_for()
    page.get_by_label("Similarity", exact=True).select_option("cka")
    page.get_by_text("CKA of 512 of the 10000 positions, evenly apart.").wait_for()
    assert shown.widget.similarity["shape"] == [2, 2]


class Busy(Shown):
    """A page whose kernel works on something else until it is let go."""

    def _sync(self, text: str) -> str:
        self.held = text
        return "{}"

    def let_go(self) -> None:
        self.page.evaluate("(text) => receive(text)", super()._sync(self.held))


def test_what_is_shown_keeps_its_label_while_the_kernel_is_busy(page: Any) -> None:
    shown = Busy(page, LayerCollapse(layered()))
    waits = page.get_by_text("Waiting for the kernel")
    token = page.get_by_text("of the energy in channel 3")
    token.wait_for()
    assert waits.is_hidden()
    page.get_by_label("Channel", exact=True).select_option("4")
    waits.wait_for()
    assert token.is_visible() and page.get_by_text("of the energy in channel 4").count() == 0
    assert page.get_by_role("heading", name="Channel 3 after layer 0").is_visible()
    shown.let_go()
    page.get_by_text("of the energy in channel 4").wait_for()
    assert waits.is_hidden() and token.count() == 0


def test_a_picture_says_what_it_is_of() -> None:
    widget = LayerCollapse(layered())
    widget.channel, widget.step, widget.kind, widget.without = 4, 1, "cka", True
    of = {name: getattr(widget, name) for name in ("similarity", "token_shares", "detail")}
    assert [of["similarity"][name] for name in ("kind", "without", "step")] == ["cka", 4, 1]
    assert [of["token_shares"][name] for name in ("channel", "step", "group")] == [4, 1, 1]
    assert [of["detail"][name] for name in ("channel", "layer", "step")] == [4, 0, 1]

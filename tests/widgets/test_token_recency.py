from typing import Any

import numpy as np
import pytest
import torch

from dlens.widgets import TokenRecency
from tests.browser import Shown
from tests.widgets.records import WILD, check_escaped, check_no_markup, denoised, record, turning


def test_several_on_the_same_axes(recency_read: Any, recency_decoded: Any) -> None:
    widget = TokenRecency({"AR": recency_read, "diffusion": recency_decoded})
    assert [profile["about"] for profile in widget.profiles] == ["no noise level", "all noise levels"]
    widget.noise = 9
    assert widget.profiles[1]["about"] == "90 to 100 % masked"
    assert widget.steps == [0] and widget.noises == [None]
    widget.chosen = 1
    assert widget.steps == [0, 3] and widget.noises == [1, 0.25]
    widget.layer, widget.noise, widget.chosen = 99, 5, 9
    assert (widget.layer, widget.noise, widget.chosen) == (15, 4, 1)
    assert widget.message == "There is no model 9: model 1 is shown."
    for name, word, given, shown in (
        ("step", "step", 50, 3),
        ("layer", "layer", 99, 15),
        ("noise", "noise level", 6, 7),
    ):
        setattr(widget, name, given)
        assert (getattr(widget, name), widget.message) == (
            shown,
            f"There is no {word} {given}: {word} {shown} is shown.",
        )
        assert widget.message in widget.html()
    widget.layer = 3
    assert widget.message == ""


def test_a_record_with_its_measure_alone_says_what_tokens_need(recency_read: Any) -> None:
    alone = record(recency_read.tokens, n_layers=recency_read.n_layers, measures=recency_read.measures)
    widget = TokenRecency([alone])
    assert widget.matrix == {} and ".capture('resid_post'" in widget.message
    assert ".capture(&#39;resid_post&#39;" in widget.html()


def test_models_of_unlike_depth() -> None:
    widget = TokenRecency([turning(layers=1), turning(layers=3)])
    widget.layer = 2
    assert [profile["about"] for profile in widget.profiles] == ["nothing measured here", "step 0"]
    assert "a layer below 1" in widget.message


def test_bad_input_says_what_to_capture() -> None:
    with pytest.raises(ValueError, match="dlens.Recency"):
        TokenRecency(denoised())
    with pytest.raises(ValueError, match="expected some"):
        TokenRecency(record(torch.zeros(1, 0, dtype=torch.long)))
    with pytest.raises(ValueError, match="several by name"):
        TokenRecency([])
    with pytest.raises(IndexError, match="row 3 of 1"):
        TokenRecency(turning(), row=3)


def test_the_fallback_escapes_tokens_and_names() -> None:
    html = TokenRecency({"<b>x": turning()})._repr_mimebundle_()[0]["text/html"]
    assert 'role="img"' in html and "&lt;b&gt;x" in html and "<b>x" not in html


def test_the_fallback_escapes_the_model_in_every_place() -> None:
    html = TokenRecency([turning(model=f"model {WILD}")]).html()
    check_escaped(html, "model ", '<td style="padding-right:1em">model ', "<p>model ", 'aria-label="model ')


def test_ten_thousand_tokens_are_grouped(page: Any) -> None:
    shown = Shown(page, TokenRecency(turning(positions=10_000, layers=1)))
    assert shown.widget.group == 40 and shown.widget.matrix["shape"] == [250, 250]
    page.get_by_text("Each cell is the mean of 40 by 40 tokens.").wait_for()
    # Quarter turns: 0, -1, 0, 1, and so on.
    near = np.frombuffer(shown.widget.profiles[0]["similarity"]["data"], "<f4")
    np.testing.assert_allclose(near[:8], [0, -1, 0, 1, 0, -1, 0, 1], atol=1e-5)
    assert len(near) == 9_999


def test_one_layer_one_step_and_one_position(page: Any) -> None:
    Shown(page, TokenRecency(turning(positions=1, layers=1, steps=1)))
    page.get_by_text("made up: as it is (step 0): no numbers here").first.wait_for()
    page.get_by_text("0 (0 to 0)").wait_for()


def test_clicks_and_keys_reach_python_and_the_picture(page: Any, recency_read: Any, recency_decoded: Any) -> None:
    shown = Shown(page, TokenRecency({"AR": recency_read, "diffusion": recency_decoded}))
    widget = shown.widget
    page.get_by_label("Layer", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("9 (0 to 15)").wait_for()
    assert widget.layer == 9
    page.get_by_label("Noise level").focus()
    page.keyboard.press("End")
    page.get_by_text("diffusion (90 to 100 % masked)").first.wait_for()
    assert widget.noise == 9
    page.get_by_label("Tokens of").select_option("1")
    page.get_by_text("0, 100 % masked").wait_for()
    assert widget.chosen == 1
    page.get_by_label("Step", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("3, 25 % masked").wait_for()
    assert widget.step == 3
    page.get_by_label("similarity token by token, AR").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text('positions 0 "Once" and 1 " upon": cosine').first.wait_for()
    assert (widget.position, widget.position_b) == (0, 1)


def test_tokens_are_text(page: Any) -> None:
    shown = Shown(page, TokenRecency(turning()))
    shown.widget._records[0].canvas[:, 0, 2] = 6  # pyright: ignore
    shown.set(position=2)
    page.get_by_text("<script>alert(1)</script>").wait_for()
    shown.widget._records[0].canvas[:, 0, 3] = 7  # pyright: ignore
    shown.set(position=3)
    page.get_by_text("onerror").wait_for()
    check_no_markup(page)


def test_what_is_shown_says_what_it_is_of() -> None:
    widget = TokenRecency([turning(), turning()])
    widget.layer, widget.chosen = 1, 1
    assert {(each["layer"], each["noise"]) for each in widget.profiles} == {(1, -1)}
    assert [widget.matrix[name] for name in ("layer", "step", "chosen", "group")] == [1, widget.step, 1, 1]


def test_models_stand_side_by_side_without_the_diagonal(page: Any) -> None:
    shown = Shown(page, TokenRecency({"one": turning(), "two": turning(steps=1)}))
    shown.set(step=1)
    page.get_by_role("heading", name="one, layer 1, step 1").wait_for()
    page.get_by_role("heading", name="two, layer 1, step 0").wait_for()
    assert [held["tokens"] for held in shown.widget.matrices] == [["Once", " upon", "<|mask|>", "<|mask|>"]] + [
        ["Once", "<|mask|>", "<|mask|>", "<|mask|>"]
    ]
    page.get_by_text('positions 0 "Once" and 0 "Once": the same token').first.wait_for()
    # The colours end at the largest cosine of two tokens, on both sides of 0.
    assert page.locator(".recency .scale").first.inner_text().split() == ["−1", "1"]
    assert shown.widget.html().count("#808080") == 2 * 4


def test_distances_of_few_pairs_are_left_out(page: Any) -> None:
    Shown(page, TokenRecency(turning(positions=12)))
    page.get_by_text("Distances with fewer than 5 pairs are left out.").wait_for()
    page.get_by_text("The numbers").first.click()
    # Eleven distances, of which the last four have four pairs and fewer.
    rows = page.locator("details[open] tbody tr td:first-child").all_inner_texts()
    assert rows == [str(d) for d in range(1, 8)]

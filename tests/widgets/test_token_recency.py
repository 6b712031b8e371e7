from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.widgets import TokenRecency
from dlens.widgets.token_recency_numbers import (
    ALL_LEVELS,
    from_measure,
    from_stream,
    levels_of,
    noise_of,
    token_similarity,
)
from tests.browser import Shown
from tests.widgets.records import MASK, captured, check_no_markup, denoised, record

TEXT = "Once upon a time there was a fox who lived in a house"


def run(positions: int = 4, layers: int = 2, steps: int = 2, **fields: Any) -> Any:
    """A denoising run whose tokens turn by a right angle each, so that P(1) = 0, P(2) = -1, P(3) = 0."""
    turns = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    h = turns[torch.arange(positions) % 4].expand(steps, layers, 1, positions, 2).clone()
    canvas = torch.full((steps, 1, positions), MASK)
    canvas[:, :, 0] = 0
    canvas[1:, :, 1:2] = 1
    tokens = torch.tensor([[0, *(1 + i % 3 for i in range(positions - 1))]])
    given = {"n_layers": layers, "captured": captured(h, tuple(range(steps)))}
    return record(tokens, canvas, **(given | fields))


@pytest.fixture(scope="module")
def forward(ar: dlens.Model) -> Any:
    return dlens.trace(ar).measure(dlens.Recency()).capture("resid_post").forward(TEXT)


@pytest.fixture(scope="module")
def denoising(diffusion: dlens.Model) -> Any:
    return dlens.trace(diffusion).measure(dlens.Recency()).capture("resid_post", steps=[0, 3]).generate(TEXT, 4)


def test_the_stream_and_the_measure_agree(forward: Any) -> None:
    measured, streamed = from_measure(forward, 5, ALL_LEVELS), from_stream(forward, 0, 5, 0)
    assert measured is not None and measured.about == "no noise level"
    near = len(streamed.similarity)
    np.testing.assert_allclose(measured.similarity[:near], streamed.similarity, atol=1e-5)
    assert np.isnan(measured.similarity[near:]).all()
    np.testing.assert_allclose(measured.index, streamed.index, atol=1e-5)


def test_noise_levels_are_those_that_occur(denoising: Any) -> None:
    assert levels_of(denoising) == [2, 4, 7, 9]
    found = from_measure(denoising, 3, 9)
    assert found is not None and found.about == "90 to 100 % masked"
    expected = denoising.measures["recency"]["similarity"].values[9, 3]
    np.testing.assert_array_equal(found.similarity, expected)
    assert from_measure(denoising, 3, 8) is None
    every = from_measure(denoising, 3, ALL_LEVELS)
    assert every is not None and every.about == "all noise levels"
    data = denoising.measures["recency"]
    mean = np.average(
        data["similarity"].values[[2, 4, 7, 9], 3, :5], axis=0, weights=data["pairs"].values[[2, 4, 7, 9], :5]
    )
    np.testing.assert_allclose(every.similarity[:5], mean)


def test_numbers_by_hand() -> None:
    given = run()
    matrix = token_similarity(given, 0, 1, 0)
    assert matrix.tolist() == [[1, 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, -1, 0, 1]]
    profile = from_stream(given, 0, 1, 0)
    np.testing.assert_allclose(profile.similarity, [0, -1, 0], atol=1e-6)
    # Distances 2 and 3 are far for four positions.
    np.testing.assert_allclose(profile.index, [0.5, 0.5], atol=1e-6)
    assert noise_of(given, 0, 0) == 1 and noise_of(given, 0, 1) == pytest.approx(2 / 3)


def test_one_position_has_no_pairs() -> None:
    profile = from_stream(run(positions=1), 0, 0, 0)
    assert profile.similarity.shape == (0,) and np.isnan(profile.index).all()


def test_several_on_the_same_axes(forward: Any, denoising: Any) -> None:
    widget = TokenRecency({"AR": forward, "diffusion": denoising})
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


def test_a_record_with_its_measure_alone_says_what_tokens_need(forward: Any) -> None:
    alone = record(forward.tokens, n_layers=forward.n_layers, measures=forward.measures)
    widget = TokenRecency([alone])
    assert widget.matrix == {} and ".capture('resid_post'" in widget.message
    assert ".capture(&#x27;resid_post&#x27;" in widget.html()


def test_models_of_unlike_depth() -> None:
    widget = TokenRecency([run(layers=1), run(layers=3)])
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
        TokenRecency(run(), row=3)


def test_the_fallback_escapes_tokens_and_names() -> None:
    html = TokenRecency({"<b>x": run()})._repr_mimebundle_()[0]["text/html"]
    assert "role='img'" in html and "&lt;b&gt;x" in html and "<b>x" not in html


def test_ten_thousand_tokens_are_grouped(page: Any) -> None:
    shown = Shown(page, TokenRecency(run(positions=10_000, layers=1)))
    assert shown.widget.group == 40 and shown.widget.matrix["shape"] == [250, 250]
    page.get_by_text("Each cell is the mean of 40 by 40 tokens.").wait_for()
    # Quarter turns: 0, -1, 0, 1, and so on.
    near = np.frombuffer(shown.widget.profiles[0]["similarity"]["data"], "<f4")
    np.testing.assert_allclose(near[:8], [0, -1, 0, 1, 0, -1, 0, 1], atol=1e-5)
    assert len(near) == 9_999


def test_groups_are_means_of_cosines() -> None:
    h = torch.randn(1, 1, 1, 7, 3, generator=torch.Generator().manual_seed(0))
    given = run(positions=7, layers=1, steps=1, captured=captured(h, (0,)))
    whole, grouped = (token_similarity(given, 0, 0, 0, size) for size in (1, 3))
    torch.testing.assert_close(grouped[0, 1], whole[:3, 3:6].mean())
    torch.testing.assert_close(grouped[2, 1], whole[6:, 3:6].mean())


def test_one_layer_one_step_and_one_position(page: Any) -> None:
    Shown(page, TokenRecency(run(positions=1, layers=1, steps=1)))
    page.get_by_text("made up: as it is (step 0): no numbers here").first.wait_for()
    page.get_by_text("0 (0 to 0)").wait_for()


def test_clicks_and_keys_reach_python_and_the_picture(page: Any, forward: Any, denoising: Any) -> None:
    shown = Shown(page, TokenRecency({"AR": forward, "diffusion": denoising}))
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
    page.get_by_label("similarity token by token").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text('positions 0 "Once" and 1 " upon": cosine').wait_for()
    assert (widget.position, widget.position_b) == (0, 1)


def test_tokens_are_text(page: Any) -> None:
    shown = Shown(page, TokenRecency(run()))
    shown.widget._records[0].canvas[:, 0, 2] = 6  # pyright: ignore
    shown.set(position=2)
    page.get_by_text("<script>alert(1)</script>").wait_for()
    shown.widget._records[0].canvas[:, 0, 3] = 7  # pyright: ignore
    shown.set(position=3)
    page.get_by_text("onerror").wait_for()
    check_no_markup(page)

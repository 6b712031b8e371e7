"""Figures say what they are of besides a model, once where it is the same for all."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

import dlens
from dlens.findings.layers.profile import Profile
from dlens.show import figures
from dlens.show.figures.captions import caption_of, captioned
from tests.widgets.records import denoised, record

LONG = "Once upon a time there was a fox who lived in a house far away from all the others"


def words(found: Any, name: str = "own") -> str:
    return caption_of(captioned(go.Figure(), [(name, found)]))


def test_a_record_has_its_text_and_its_operations(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).measure(dlens.Cosine()).capture("resid_post", layers=0)
    assert words(trace.forward("Once upon a time")) == "“Once upon a time”"
    several = words(trace.skip([3, 5]).forward([LONG, "Once"]))
    assert (
        several == "2 texts, the first “Once upon a time there was a fox who lived in a house far a…”; skip layers 3, 5"
    )
    assert words(trace.generate("Once upon a", 3)).startswith("3 new tokens after “Once upon a”")


def test_a_denoising_run_says_how_much_is_new_and_a_record_without_words_how_many_rows() -> None:
    assert words(denoised(3)) == "3 new tokens after “Once”"
    mute = record(denoised(3).tokens, read_pieces=None)
    assert words(mute) == "1 text"


def test_a_profile_and_a_comparison_say_how_much_was_read(profiles: list[Profile]) -> None:
    own = [f"{each.n_prompts} texts, {each.n_tokens} tokens" for each in profiles]
    assert words(profiles[0]) == own[0] == own[1]
    for draw in (figures.cosine_by_layer, figures.largest_share):
        assert caption_of(draw(profiles)) == own[0], "once, as both read the same"
    compared = dlens.compare({"a": profiles[0], "b": profiles[1]})
    assert caption_of(figures.comparison_lines(compared, "cosine")) == own[0]
    for draw in (figures.channel_share, figures.cosine_by_noise, figures.share_by_noise):
        assert caption_of(draw(profiles[1])) == own[1]


def test_what_differs_is_said_of_each(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).measure(dlens.Cosine())
    runs = [trace.forward("Once"), trace.forward("A fox")]
    assert caption_of(figures.cosine_by_layer(runs)) == "trio/ar: “Once”. trio/ar: “A fox”"


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert caption_of(captioned(go.Figure(), [])) == "" == caption_of(go.Figure(layout={"meta": "mine"}))


def test_findings_have_their_task(ar: dlens.Model) -> None:
    kept = {name: dlens.retention(ar, [int(name)], n=2, max_new_tokens=2) for name in ("3", "5")}
    assert caption_of(figures.retention_points(kept)) == "trio/ar, 2 problems of trio-math, seed 0"
    thirds = dlens.phases(ar, [5], n=2, max_new_tokens=3)
    assert caption_of(figures.phases_points([thirds])) == "2 problems of trio-math, seed 0; skip layers 5"
    moved = dlens.disruption(ar, [5], ["Once upon", "A fox"], fractions=[0.5], max_new_tokens=4)
    for figure in (figures.disruption_by_layer([moved], 0.5), figures.disruption_by_fraction([moved])):
        assert caption_of(figure) == "2 texts; skip layers 5"
    found = dlens.collapse(ar, n=2, n_random=0, max_new_tokens=2, texts=["Once upon a time"], prompts=["Once"])
    assert caption_of(figures.effect_bars([found])) == "2 problems of trio-math, seed 0"
    assert caption_of(figures.channel_by_layer([found])) == "1 text, continued by 32 tokens, seed 0"


@pytest.mark.parametrize(("noise", "shown"), [(None, ""), (0.5, ", 50% masked")])
def test_an_attribution_names_its_model(noise: float | None, shown: str, diffusion: dlens.Model) -> None:
    metric = dlens.metrics.logit_difference(right=301, wrong=302)
    pair = ("Once upon a time", "Once upon a hill")
    found = dlens.attribute(diffusion, *pair, metric, method="attribution", layers=[3], noise=noise)
    caption = caption_of(figures.attribution_heat(found))
    assert caption == f"trio/diffusion, attribution at resid_post, a pair of texts{shown}"

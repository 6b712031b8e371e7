"""Figures show the numbers of the findings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dlens
from dlens.findings.effects.collapse import Collapse, Effect
from dlens.findings.effects.phases import Phases
from dlens.findings.effects.retention import Retention, judged
from dlens.show import figures
from tests.findings.answers import answers
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]


@pytest.fixture(scope="module")
def kept() -> dict[str, Retention]:
    before = answers("1111111100")
    return {
        name: judged("by hand", before, answers(own), 0) for name, own in (("a", "1110000000"), ("b", "0000000000"))
    }


@pytest.fixture(scope="module")
def moved(ar: dlens.Model, diffusion: dlens.Model) -> list[dlens.Disruption]:
    return [dlens.disruption(model, [4], TEXTS, (0, 0.5), max_new_tokens=2) for model in (ar, diffusion)]


def test_retention_has_its_interval(kept: dict[str, Retention]) -> None:
    points = figures.retention_points(kept).data[0]
    assert list(points.y) == ["a", "b"] and list(points.x) == [kept["a"].retained, 0]
    ends = [(kept[name].low, kept[name].high) for name in "ab"]
    assert ends[1][0] == 0 < ends[1][1] < 1
    np.testing.assert_allclose(np.subtract(points.x, points.error_x.arrayminus), [low for low, _ in ends])
    np.testing.assert_allclose(np.add(points.x, points.error_x.array), [high for _, high in ends])


def test_one_line_a_model_over_thirds(kept: dict[str, Retention]) -> None:
    found = Phases("by hand", (3,), {"early": kept["a"], "middle": kept["b"], "late": kept["a"]}, ())
    figure = figures.phases_points([found, found])
    assert [line.name for line in figure.data] == ["by hand"] * 2
    assert list(figure.data[0].x) == ["early", "middle", "late"] and list(figure.data[0].y) == [
        kept[third].retained for third in "aba"
    ]


@pytest.mark.parametrize("axis", ["layer", "depth"])
def test_disruption_has_a_band(moved: list[dlens.Disruption], axis: str) -> None:
    figure = figures.disruption_by_layer(moved, 0.5, axis=axis)
    assert len(figure.data) == 6
    low, high, line = figure.data[3:]
    own = moved[1].data.sel(fraction=0.5, positions="deciding")
    for drawn, name in ((low, "low"), (high, "high"), (line, "cosine")):
        np.testing.assert_allclose(drawn.y, own[name])
    assert line.name == "trio/diffusion" and max(line.x) == (15 if axis == "layer" else 1)


def test_disruption_by_share_of_tokens(moved: list[dlens.Disruption]) -> None:
    line = figures.disruption_by_fraction(moved, "all").data[0]
    assert list(line.x) == [0, 0.5]
    np.testing.assert_allclose(line.y, moved[0].data["cosine"].sel(positions="all", layer=15))


def test_bars_of_effects_and_where_a_channel_lives(kept: dict[str, Retention], ar: dlens.Model) -> None:
    from dlens.findings.effects.residence import residence

    where = residence(dlens.trace(ar), 5, ["Once"], max_new_tokens=2)
    numbers: dict[str, Any] = {"loss": 2.0, "repetition": 0.1, "distinct_1": 0.5, "distinct_2": 0.6, "empty": 0.0}
    effect = Effect("outlier to zero", (5,), "activations", "zero", 0.4, kept["a"], examples=(), **numbers)
    found = Collapse("by hand", "by hand", 10, 0, 5, 0.4, where, (1,), (effect,), ())
    bars = figures.effect_bars([found], "accuracy").data[0]
    assert (list(bars.y), list(bars.x), list(bars.customdata)) == (["outlier to zero"], [kept["a"].accuracy], ["5"])
    assert list(figures.effect_bars([found], "loss").data[0].x) == [2.0]
    line = figures.channel_by_layer([found], "steps_led").data[0]
    np.testing.assert_allclose(line.y, where["steps_led"])
    assert line.name == "by hand, channel 5"


def test_comparison_by_either_axis(profiles: list[dlens.Profile]) -> None:
    table = dlens.compare({"a": profiles[0]})
    for axis, end in (("layer", 15), ("depth", 1)):
        [line] = figures.comparison_lines(table, "top_share", axis).data
        assert (line.name, max(line.x)) == ("a", end)
        assert list(line.y) == [row["top_share"] for row in profiles[0].table()]
    with pytest.raises(ValueError, match="axis='width'; expected one of layer, depth"):
        figures.comparison_lines(table, "top_share", "width")


def test_one_result_needs_no_list_and_others_are_refused(moved: list[dlens.Disruption]) -> None:
    with unchecked():
        alone = figures.disruption_by_layer(moved[0], 0.5)  # pyright: ignore
    assert alone == figures.disruption_by_layer([moved[0]], 0.5)
    for wrong in ("trio/ar", 5, [5], {"ar": moved[0]}):
        with (
            unchecked(),
            pytest.raises(ValueError, match="the figure got .*; expected Disruption objects; pass a list"),
        ):
            figures.disruption_by_layer(wrong, 0.5)  # pyright: ignore


def test_words_that_a_result_does_not_hold_are_refused(
    moved: list[dlens.Disruption], kept: dict[str, Retention]
) -> None:
    for what, draw in {
        "positions": lambda wrong: figures.disruption_by_fraction(moved, wrong),
        "positions ": lambda wrong: figures.disruption_by_layer(moved, 0.5, wrong),
        "fraction": lambda wrong: figures.disruption_by_layer(moved, wrong),
        "table": lambda wrong: figures.comparison_lines(wrong, "cosine"),
    }.items():
        for wrong in WRONG.values():
            with unchecked(), pytest.raises(ValueError) as caught:
                draw(wrong)
            assert_three_parts(str(caught.value), f"{what.strip()}=")
    # No result is an empty figure.
    for wrong in [*(each for each in WRONG.values() if each != {}), kept["a"]]:
        with unchecked(), pytest.raises(ValueError, match="; expected"):
            figures.retention_points(wrong)

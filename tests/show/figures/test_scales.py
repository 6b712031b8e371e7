"""Numbers and names stand where plotly would put them along an axis."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from dlens.show.figures.scales import Scale, finite_of, plain_words, scale_of, words_of

NAN = float("nan")


def axis(**given: Any) -> Any:
    return go.Figure(layout={"xaxis": given}).layout.xaxis  # pyright: ignore


def test_an_axis_of_numbers_has_a_margin_and_round_ticks() -> None:
    scale = scale_of(axis(title={"text": "layer"}), [[0, 5, NAN], [10, None]], padding=0.1)
    assert (scale.title, scale.low, scale.high) == ("layer", -1, 11)
    assert scale.ticks == [(0, "0"), (2, "2"), (4, "4"), (6, "6"), (8, "8"), (10, "10")]
    assert scale.share(5) == 0.5 and scale.share(None) != scale.share(None)


def test_further_numbers_widen_an_axis() -> None:
    scale = scale_of(axis(), [[0.0, 1.0]], more=[3.0], padding=0)
    assert (scale.low, scale.high) == (0, 3)


def test_a_given_range_and_given_ticks_are_kept() -> None:
    scale = scale_of(axis(range=[2.6, -0.6], tickvals=[0, 1], ticktext=["a&lt;b", "c"]), [[0, 1]])
    assert (scale.low, scale.high, scale.ticks) == (2.6, -0.6, [(0.0, "a<b"), (1.0, "c")])
    assert scale.share(2.6) == 0 and scale.share(-0.6) == 1


@pytest.mark.parametrize(("reversed_", "first"), [(False, 0.25), (True, 0.75)])
def test_names_stand_one_after_the_other(reversed_: bool, first: float) -> None:
    given = axis(type="category", **({"autorange": "reversed"} if reversed_ else {}))
    scale = scale_of(given, [["b", "a"], ["a"]])
    assert scale.names == ("b", "a") and scale.share("b") == first


def test_one_number_alone_has_room() -> None:
    scale = scale_of(axis(), [[2.0]])
    assert scale.low < 2 < scale.high and scale.ticks


def test_words_have_no_markup_and_one_minus() -> None:
    assert plain_words("<b>x</b><br>1 &lt; 2 <c>") == "x, 1 < 2 <c>"
    assert [words_of(value, ".2f") for value in (-1.5, NAN, 0.25)] == ["−1.50", "", "0.25"]
    assert finite_of(None) != finite_of(None) and finite_of(3) == 3.0
    assert Scale("", 0, 2, []).share(1) == 0.5

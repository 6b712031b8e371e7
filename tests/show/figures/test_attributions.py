from __future__ import annotations

import numpy as np
import pytest

import dlens
from dlens.show.figures import attribution_heat
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

METRIC = dlens.metrics.logit_difference(301, 302)
PAIR = ("Once upon a time", "Once upon a hill")


def test_tokens_stand_on_the_axis(ar: dlens.Model) -> None:
    found = dlens.attribute(ar, *PAIR, METRIC, method="attribution", layers=[3, 8])
    figure = attribution_heat(found)
    heat = figure.data[0]
    np.testing.assert_array_equal(heat.z, found.scores.values)
    assert list(figure.layout.xaxis.ticktext) == ["Once", " upon", " a", " time→ hill"]
    assert list(heat.y) == ["3", "8"] and heat.zmid == 0 and figure.layout.xaxis.title.text == "token"


def test_heads_and_single_rows(ar: dlens.Model) -> None:
    heads = attribution_heat(dlens.attribute(ar, *PAIR, METRIC, at="z", method="attribution"))
    assert heads.data[0].z.shape == (16, 3) and list(heads.layout.xaxis.ticktext) == ["0", "1", "2"]
    assert heads.layout.xaxis.title.text == "head"
    embed = attribution_heat(dlens.attribute(ar, *PAIR, METRIC, at="embed", method="attribution"))
    assert embed.data[0].z.shape == (1, 4) and embed.layout.yaxis.title.text == ""
    assert embed.data[0].hovertemplate.startswith("position %{x}, %{customdata}")


def test_pairs_that_disagree_are_numbered_and_markup_stays_text(ar: dlens.Model) -> None:
    ids = ar.tokenizer("a<b>c")["input_ids"]
    pairs = [ids, [*ids[:-1], 301]], [[*ids[:-1], 302], [*ids[:-1], 303]]
    figure = attribution_heat(dlens.attribute(ar, *pairs, METRIC, method="attribution", layers=[3]))
    ticks = list(figure.layout.xaxis.ticktext)
    assert ticks[-1] == str(len(ids) - 1) and "".join(ticks[:-1]).startswith("a&lt;b")


def test_other_things_are_refused(ar: dlens.Model) -> None:
    by = ("layer", "head", "position")
    found = dlens.attribute(ar, *PAIR, METRIC, at="z", method="attribution", layers=[3], by=by)
    with pytest.raises(ValueError, match="expected two at most") as caught:
        attribution_heat(found)
    assert_three_parts(str(caught.value), "axes layer, position, head")
    with unchecked(), pytest.raises(ValueError, match="expected an Attribution") as caught:
        attribution_heat(3)  # pyright: ignore[reportArgumentType]
    assert_three_parts(str(caught.value), "got int")

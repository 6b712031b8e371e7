import re
from typing import Any

import numpy as np
import pytest

import dlens
from dlens.findings.layers.profile import Profile
from dlens.show import figures
from dlens.show.figures.drawing import Words
from dlens.show.figures.layout import drawn
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_one_line_a_model(profiles: list[Profile]) -> None:
    figure = figures.cosine_by_layer(profiles)
    assert figure.data[0].name == "trio/ar, clean"
    assert re.fullmatch(r"trio/diffusion, 0% to \d+% masked", figure.data[1].name)
    for line, p in zip(figure.data, profiles, strict=True):
        np.testing.assert_allclose(line.y, [row["cosine"] for row in p.table()])


def test_the_first_layer_does_not_flatten_the_others(profiles: list[Profile]) -> None:
    for figure in (figures.cosine_by_layer(profiles), figures.cosine_by_noise(profiles[1])):
        low, high = figure.layout.yaxis.range
        later = [value for line in figure.data for value in line.y[1:]]
        assert low < min(later) and max(later) < high
        assert high - low < 1.5 * (max(later) - min(later))


def test_the_largest_channel_is_named_on_hover(profiles: list[Profile]) -> None:
    line = figures.largest_share(profiles).data[1]
    rows = profiles[1].table()
    assert list(line.text) == [f"channel {row['top_channel']}" for row in rows]
    np.testing.assert_allclose(line.y, [row["top_share"] for row in rows])


def test_channels_by_layer(profiles: list[Profile]) -> None:
    heat = figures.channel_share(profiles[1]).data[0]
    channels = profiles[1].measures["outliers"]["channel"].values
    assert heat.z.shape == (len(channels), profiles[1].n_layers)
    assert list(heat.y) == [str(channel) for channel in channels]


def test_one_line_a_noise_level_that_occurs(profiles: list[Profile]) -> None:
    n = profiles[1].measures["cosine"]["n"].sum(["step", "state", "layer"])
    for figure in (figures.cosine_by_noise(profiles[1]), figures.share_by_noise(profiles[1])):
        assert len(figure.data) == int((n > 0).sum())
        assert figure.data[0].name == "0% to 10% masked"
        assert len({line.line.color for line in figure.data}) == len(figure.data)


def numbers(figure: Any) -> list[Any]:
    return [[list(line.x), list(line.y), line.text] for line in figure.data]


def test_a_measured_record_is_drawn_as_a_profile_of_the_same_run_is(diffusion: dlens.Model) -> None:
    texts = ["Once upon a time", "The dog ran"]
    profile = dlens.profile(diffusion, texts, inputs="clean")
    record = dlens.trace(diffusion).measure(dlens.Cosine(), dlens.Outliers()).forward(texts)
    assert numbers(figures.cosine_by_layer([record])) == numbers(figures.cosine_by_layer([profile]))
    assert numbers(figures.largest_share([record])) == numbers(figures.largest_share([profile]))
    for draw in (figures.cosine_by_noise, figures.share_by_noise, figures.channel_share):
        # What the text was a record knows, and a profile only how much it was.
        assert draw(record).update_layout(meta=None) == draw(profile).update_layout(meta=None)


def test_a_figure_alone_says_whose_it_is_and_where_layer_0_went(profiles: list[Profile]) -> None:
    cosine, share = figures.cosine_by_layer(profiles[0]), figures.largest_share(profiles[0])
    for figure in (cosine, share):
        assert [mark.text for key in drawn(figure).keys for mark in key.marks if isinstance(mark, Words)] == [
            "trio/ar, clean"
        ]
    assert "block 0 is not drawn" in cosine.layout.xaxis.title.text and share.layout.xaxis.title.text == "layer"
    assert cosine.data[0].y[0] < cosine.layout.yaxis.range[0]
    for draw in (figures.channel_share, figures.cosine_by_noise, figures.share_by_noise):
        assert "trio/diffusion" in draw(profiles[1]).layout.yaxis.title.text


def test_one_profile_and_a_comparison_need_no_list(profiles: list[Profile]) -> None:
    for draw in (figures.cosine_by_layer, figures.largest_share):
        assert draw(profiles[0]) == draw([profiles[0]])
        compared = draw(dlens.compare({"a": profiles[0], "b": profiles[1]}))
        assert numbers(compared) == numbers(draw(profiles))
        assert [line.name.split(", ")[0] for line in compared.data] == ["a", "b"]


def test_the_legend_says_what_a_model_read(diffusion: dlens.Model, ar: dlens.Model) -> None:
    text, measures = list(range(20, 30)), [dlens.Cosine()]
    own = {"inputs": "trajectory", "max_new_tokens": 2}
    read = {
        "10% to 50% masked": dlens.profile(diffusion, text, rates=[0.2, 0.5], measures=measures),
        "clean": dlens.profile(diffusion, text, inputs="clean", measures=measures),
        "while decoding": dlens.profile(diffusion, text, **own, measures=measures),
    }
    decoded = dlens.trace(ar).measure(*measures).generate(text, 2)
    drawn = figures.cosine_by_layer([*read.values(), decoded]).data
    assert [line.name for line in drawn] == [*(f"trio/diffusion, {words}" for words in read), "trio/ar, while decoding"]


@pytest.mark.parametrize("wrong", [["trio/ar"], "trio/ar", 3, [[3]], {"ar": 1}], ids=str)
def test_what_cannot_be_drawn_is_named(wrong: Any) -> None:
    drawn = (figures.cosine_by_layer, figures.largest_share, figures.channel_share, figures.cosine_by_noise)
    for draw in drawn:
        with unchecked(), pytest.raises(ValueError) as caught:
            draw(wrong)
        assert_three_parts(str(caught.value), "the figure got ")


def test_a_measure_that_is_not_there_is_named(ar: dlens.Model, profiles: list[Profile]) -> None:
    record = dlens.trace(ar).measure(dlens.Outliers()).forward("Once upon a time")
    message = r"^record holds measures outliers; expected cosine; add \.measure\(dlens\.Cosine\(\)\)$"
    for draw in (figures.cosine_by_layer, figures.cosine_by_noise):
        with pytest.raises(ValueError, match=message):
            draw(record)
    with pytest.raises(
        ValueError, match=r"^profile holds measures cosine; .*; pass measures=\[dlens.Outliers\(\)\] to"
    ):
        figures.channel_share(dlens.profile(ar, ["Once"], measures=[dlens.Cosine()]))
    with pytest.raises(
        ValueError, match="^trio/ar was measured without noise levels; expected a diffusion model; draw"
    ):
        figures.cosine_by_noise(profiles[0])

import numpy as np

import dlens
from dlens.findings.profile import Profile
from dlens.show import figures


def test_one_line_a_model(profiles: list[Profile]) -> None:
    figure = figures.cosine_by_layer(profiles)
    assert [line.name for line in figure.data] == ["trio/ar", "trio/diffusion"]
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


def test_a_measured_record_is_drawn_as_a_profile_of_the_same_run_is(diffusion: dlens.Model) -> None:
    texts = ["Once upon a time", "The dog ran"]
    profile = dlens.profile(diffusion, texts, inputs="clean")
    record = dlens.trace(diffusion).measure(dlens.Cosine(), dlens.Outliers()).forward(texts)
    assert figures.cosine_by_layer([record]) == figures.cosine_by_layer([profile])
    assert figures.cosine_by_noise(record) == figures.cosine_by_noise(profile)
    assert figures.largest_share([record]) == figures.largest_share([profile])
    assert figures.share_by_noise(record) == figures.share_by_noise(profile)
    assert figures.channel_share(record) == figures.channel_share(profile)

"""Plotly figures of profiles and of measured records: returned, never shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dlens.findings.layers.compare import Comparison
from dlens.findings.layers.profile import Profile
from dlens.measures import pool
from dlens.show.figures.captions import captioned
from dlens.show.figures.statistics import Statistic, lines
from dlens.show.figures.style import noise_words, styled
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = [
    "channel_share",
    "cosine_by_layer",
    "cosine_by_noise",
    "largest_share",
    "share_by_noise",
]

_COSINE = "cosine of block input and output"
_NOISE_SCALE = "Viridis"
_MEASURES = {"cosine": "dlens.Cosine()", "outliers": "dlens.Outliers()"}

MeasuredLayers = Profile | Record
SeveralMeasured = MeasuredLayers | Comparison | Sequence[MeasuredLayers]


def cosine_by_layer(profiles: SeveralMeasured) -> go.Figure:
    """Cosine of each block's input with its output, one line a model; the legend says what each read.

    Args:
        profiles: a profile, a record measured with `dlens.Cosine()`, several of these, or a comparison.

    Raises:
        ValueError: anything else, or the measure is not there.

    Examples:
        >>> import dlens
        >>> models, given = ("trio/ar", "trio/diffusion"), {"rates": [0.25, 0.75]}
        >>> profiles = [dlens.profile(name, ["Once upon a time"], **given) for name in models]
        >>> [line.name for line in cosine_by_layer(profiles).data]
        ['trio/ar, clean', 'trio/diffusion, 20% to 80% masked']
    """
    named = _named(profiles)
    drawn = [_by_layer(_label(name, p, "cosine"), _COSINE, _pooled(p, "cosine", "cosine")) for name, p in named]
    return captioned(_without_first_layer(_with_legend(lines(drawn))), named)


def largest_share(profiles: SeveralMeasured) -> go.Figure:
    """Energy share of the largest channel after each block, one line a model; the channel is shown on hover.

    Args:
        profiles: a profile, a record measured with `dlens.Outliers()`, several of these, or a comparison.

    Raises:
        ValueError: anything else, or the measure is not there.

    Examples:
        >>> import dlens
        >>> models, given = ("trio/ar", "trio/diffusion"), {"rates": [0.25, 0.75]}
        >>> profiles = [dlens.profile(name, ["Once upon a time"], **given) for name in models]
        >>> [line.name for line in largest_share(profiles).data]
        ['trio/ar, clean', 'trio/diffusion, 20% to 80% masked']
    """
    drawn, named = [], _named(profiles)
    for name, p in named:
        data = _measure(p, "outliers")
        channels = [f"channel {channel}" for channel in data["top_channel"].values]
        label = "energy share of the largest channel"
        drawn.append(_by_layer(_label(name, p, "outliers"), label, data["top_share"], channels))
    return captioned(_with_legend(lines(drawn)), named)


def channel_share(profile: MeasuredLayers) -> go.Figure:
    """Energy share of the largest channels, layer by layer, as a heat map.

    Examples:
        >>> import dlens
        >>> figure = channel_share(dlens.profile("trio/ar", ["Once upon a time"]))
        >>> figure.data[0].z.shape
        (8, 16)
    """
    import plotly.graph_objects as go

    share = _pooled(profile, "outliers", "energy_share").transpose("channel", "layer")
    heat = go.Heatmap(
        z=share.values,
        x=share["layer"].values,
        y=[str(channel) for channel in share["channel"].values],
        colorscale=_NOISE_SCALE,
        zmin=0,
        colorbar={"title": {"text": "share"}, "thickness": 12},
        hovertemplate="layer %{x}, channel %{y}: %{z:.3f}<extra></extra>",
    )
    figure = styled(
        go.Figure(heat), "layer", f"channel of {profile.model}", yaxis={"type": "category", "autorange": "reversed"}
    )
    return captioned(figure, [("", profile)])


def cosine_by_noise(profile: MeasuredLayers) -> go.Figure:
    """Cosine by layer, one line a noise level.

    Examples:
        >>> import dlens
        >>> figure = cosine_by_noise(dlens.profile("trio/diffusion", ["Once upon a time"], rates=[0.25, 0.75]))
        >>> [line.name for line in figure.data]
        ['20% to 30% masked', '70% to 80% masked']
    """
    values = _pooled(profile, "cosine", "cosine", ["noise"])
    return captioned(_without_first_layer(_noise_lines(values, f"{_COSINE}, {profile.model}")), [("", profile)])


def share_by_noise(profile: MeasuredLayers) -> go.Figure:
    """Energy share of the largest channel by layer, one line a noise level.

    Examples:
        >>> import dlens
        >>> figure = share_by_noise(dlens.profile("trio/diffusion", ["Once upon a time"], rates=[0.25, 0.75]))
        >>> [line.name for line in figure.data]
        ['20% to 30% masked', '70% to 80% masked']
    """
    share = _pooled(profile, "outliers", "energy_share", ["noise"]).isel(channel=0)
    figure = _noise_lines(share, f"energy share of channel {int(share['channel'])}, {profile.model}")
    return captioned(figure, [("", profile)])


def _named(profiles: SeveralMeasured) -> list[tuple[str, MeasuredLayers]]:
    """Every profile and record, with the name that its model goes by."""
    if isinstance(profiles, Comparison):
        return list(profiles.profiles.items())
    listed = isinstance(profiles, Iterable) and not isinstance(profiles, (Profile, Record, str))
    return [(own.model, own) for own in map(_checked, list(profiles) if listed else [profiles])]  # pyright: ignore


def _checked(source: Any) -> MeasuredLayers:
    if isinstance(source, (Profile, Record)):
        return source
    came = repr(source) if isinstance(source, str) else type(source).__name__
    raise ValueError(
        f"the figure got {came}; expected a profile or a measured record; pass what dlens.profile or a run with "
        f".measure(...) returned"
    )


def _measure(source: MeasuredLayers, key: str) -> xr.Dataset:
    """What a profile or record measured under a key.

    Raises:
        ValueError: nothing.
    """
    if key in _checked(source).measures:
        return source.measures[key]
    profile = isinstance(source, Profile)
    held = ", ".join(source.measures) or "none"
    fix = f"pass measures=[{_MEASURES[key]}] to dlens.profile" if profile else f"add .measure({_MEASURES[key]})"
    raise ValueError(f"{'profile' if profile else 'record'} holds measures {held}; expected {key}; {fix}")


def _label(name: str, source: MeasuredLayers, key: str) -> str:
    """A model and what it read, without which two lines cannot be compared."""
    return f"{name}, {_inputs(source, _measure(source, key))}"


def _inputs(source: MeasuredLayers, data: xr.Dataset) -> str:
    read = source.inputs if isinstance(source, Profile) else source.kind
    if read in ("trajectory", "denoising", "decoding"):
        return "while decoding"
    if read == "clean" or "noise" not in data.dims:
        return "clean"
    n = data["n"].sum([dim for dim in data["n"].dims if dim != "noise"])
    seen = data["noise"].values[n.values > 0]
    return noise_words(seen.min(), seen.max())


def _pooled(source: MeasuredLayers, key: str, variable: str, by: Sequence[str] = ()) -> xr.DataArray:
    """A variable by layer, and by what is named, averaged over positions."""
    data = _measure(source, key)
    if "noise" in by and "noise" not in data.dims:
        raise ValueError(
            f"{source.model} was measured without noise levels; expected a diffusion model; draw it by layer alone, as "
            f"cosine_by_layer and largest_share do"
        )
    return pool(data, variable, [dim for dim in ("step", "noise", "state") if dim not in by])


def _by_layer(name: str, label: str, values: xr.DataArray, notes: Sequence[str] = ()) -> Statistic:
    return Statistic(name, label, "layer", values["layer"].values.tolist(), values.values.tolist(), notes=notes)


def _noise_lines(values: xr.DataArray, title: str) -> go.Figure:
    from plotly.colors import sample_colorscale

    seen = [noise for noise in values["noise"].values.tolist() if values.sel(noise=noise).notnull().any()]
    drawn = [_by_layer(noise_words(noise), title, values.sel(noise=noise)) for noise in seen]
    # The ends of the scale vanish against a dark and a light page.
    colours = [str(colour) for colour in sample_colorscale(_NOISE_SCALE, [0.2 + 0.6 * noise for noise in seen])]
    return lines(drawn, colours)


def _without_first_layer(figure: go.Figure) -> go.Figure:
    """Fit the axis to layer 1 and later: the first block rebuilds the stream, and would flatten all others."""
    import math

    later = [value for line in figure.data for value in line.y[1:] if math.isfinite(value)]  # pyright: ignore
    if later:
        margin = 0.05 * (max(later) - min(later)) + 1e-3
        figure.update_yaxes(range=[min(later) - margin, max(later) + margin])
        figure.update_xaxes(title_text="layer (block 0 is not drawn: it builds the stream)")
    return figure


def _with_legend(figure: go.Figure) -> go.Figure:
    """One line alone is named, too: a file of its figure would not say of whom it is."""
    return figure.update_layout(showlegend=True)

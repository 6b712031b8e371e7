"""Plotly figures of attributions, with tokens, heads or neurons on the axis: returned, never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlens.findings.circuits.attribute import Attribution
from dlens.show.figures.captions import captioned
from dlens.show.figures.style import spelt, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["attribution_heat"]

_SCALE = "RdBu_r"
_NAMES = {"position": "token", "position_b": "token attended to", "kv_head": "head of keys and values"}


def attribution_heat(found: Attribution) -> go.Figure:
    """Scores as a heat map: layers from the bottom up, with tokens, heads or neurons along them; 0 is white.

    Args:
        found: with scores of at most two axes, as `dlens.attribute` gives them by default.

    Raises:
        ValueError: something else, or scores of more axes.

    Examples:
        >>> import dlens
        >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
        >>> found = dlens.attribute("trio/ar", "Once upon a time", "Once upon a hill", metric, method="attribution")
        >>> figure = attribution_heat(found)
        >>> figure.data[0].z.shape, figure.layout.xaxis.ticktext[-1], figure.layout.yaxis.title.text
        ((16, 4), ' time→ hill', 'layer')
    """
    import plotly.graph_objects as go

    scores = _checked(found)
    along, up = str(scores.dims[-1]), str(scores.dims[0]) if scores.ndim == 2 else ""
    places, layers = scores[along].values.tolist(), scores[up].values.tolist() if up else [""]
    words = _words(found, along, places)
    heat = go.Heatmap(
        z=scores.values.reshape(len(layers), -1),
        x=list(range(len(places))),
        y=[str(layer) for layer in layers],
        customdata=[words] * len(layers),
        colorscale=_SCALE,
        zmid=0,
        colorbar={"title": {"text": "score"}, "thickness": 12},
        hovertemplate=_hover(along, up),
    )
    figure = styled(go.Figure(heat), _NAMES.get(along, along), _NAMES.get(up, up), yaxis={"type": "category"})
    figure.update_xaxes(tickmode="array", tickvals=list(range(len(places))), ticktext=words)
    return captioned(figure, [(found.model, found)])


def _checked(found: Any) -> xr.DataArray:
    if not isinstance(found, Attribution):
        raise ValueError(
            f"the figure got {type(found).__name__}; expected an Attribution; pass what dlens.attribute returned"
        )
    scores = found.scores
    if scores.ndim > 2:
        raise ValueError(
            f"the attribution has axes {', '.join(map(str, scores.dims))}; expected two at most, as a heat map has; "
            f"ask dlens.attribute for fewer in by="
        )
    return scores


def _words(found: Attribution, along: str, places: list[int]) -> list[str]:
    """What stands at each tick: the token, or the number where pairs disagree on it."""
    if along in ("position", "position_b"):
        return [spelt(found.tokens[place] or str(place)) for place in places]
    return [str(place) for place in places]


def _hover(along: str, up: str) -> str:
    place = "position %{x}, %{customdata}" if along.startswith("position") else f"{_NAMES.get(along, along)} %{{x}}"
    layer = f"{_NAMES.get(up, up)} %{{y}}, " if up else ""
    return f"{layer}{place}: %{{z:.4f}}<extra></extra>"

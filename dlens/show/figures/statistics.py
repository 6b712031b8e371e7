"""Plotly figures of a study, with their intervals: returned, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlens.findings.scores.estimate import Estimate
from dlens.show.figures.style import COLOURS, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Band", "bands", "points"]

_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Band:
    """A line with its interval.

    Args:
        name: in the legend.
        x: places.
        mean, low, high: at each place.
        colour: number of the colour.
        dash: number of the dash.
    """

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 0
    dash: int = 0


def bands(lines: Sequence[Band], x: str, y: str) -> go.Figure:
    """Lines, each with its interval as a band."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for line in lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        shared = {"x": list(line.x), "legendgroup": line.name}
        figure.add_trace(go.Scatter(y=list(line.low), **shared, **edge))
        figure.add_trace(go.Scatter(y=list(line.high), fill="tonexty", fillcolor=_faint(colour), **shared, **edge))
        figure.add_trace(
            go.Scatter(
                y=list(line.mean),
                **shared,
                name=line.name,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": _DASHES[line.dash % len(_DASHES)]},
                marker={"size": 4},
                customdata=list(zip(line.low, line.high, strict=True)),
                hovertemplate=f"{x} %{{x:.3g}}: %{{y:.3f}} (%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}})"
                "<extra>%{fullData.name}</extra>",
            )
        )
    return styled(figure, x, y)


def points(series: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]], x: str, at: float | None = None) -> go.Figure:
    """Numbers with their intervals, a row for each name and a colour for each series.

    Args:
        series: the name of each, and its numbers by what they are.
        x: what the numbers are.
        at: where a dotted line is drawn.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    names = list(dict.fromkeys(name for _, numbers in series for name, _ in numbers))
    for number, (title, effects) in enumerate(series):
        shift = 0.22 * (number - (len(series) - 1) / 2)
        values = [effect.value for _, effect in effects]
        figure.add_trace(
            go.Scatter(
                x=values,
                y=[names.index(name) + shift for name, _ in effects],
                name=title,
                mode="markers",
                marker={"size": 8, "color": COLOURS[number % len(COLOURS)]},
                error_x=_whiskers([effect for _, effect in effects]),
                customdata=[[name, effect.low, effect.high, effect.why] for name, effect in effects],
                hovertemplate="%{customdata[0]}: %{x:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f}) "
                "%{customdata[3]}<extra>%{fullData.name}</extra>",
            )
        )
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names}
    styled(figure, x, "", yaxis=ticks | {"range": [len(names) - 0.4, -0.6]})
    if at is not None:
        figure.add_vline(x=at, line={"dash": "dot", "color": "grey"})
    return figure


def _whiskers(effects: Sequence[Estimate]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [effect.high - effect.value for effect in effects],
        "arrayminus": [effect.value - effect.low for effect in effects],
        "width": 3,
    }


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"

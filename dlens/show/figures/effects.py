"""Plotly figures of findings, with their intervals: returned, never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlens.findings.effects.collapse import Collapse
from dlens.findings.effects.disruption import Disruption
from dlens.findings.effects.phases import Phases
from dlens.findings.effects.retention import Retention
from dlens.findings.layers.compare import Comparison, relative_depth
from dlens.show.figures.style import COLOURS, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "channel_by_layer",
    "comparison_lines",
    "disruption_by_fraction",
    "disruption_by_layer",
    "effect_bars",
    "phases_points",
    "retention_points",
]

_AXES = {"layer": "layer", "depth": "relative depth"}


def retention_points(kept: Mapping[str, Retention]) -> go.Figure:
    """Retained accuracy with its interval, one point for each named result.

    Examples:
        >>> import dlens
        >>> kept = {str(layer): dlens.retention("trio/ar", [layer], n=2, max_new_tokens=2) for layer in (3, 5)}
        >>> retention_points(kept).data[0].y
        ('3', '5')
    """
    import plotly.graph_objects as go

    own = list(kept.values())
    values = [each.retained for each in own]
    points = go.Scatter(
        x=values,
        y=list(kept),
        mode="markers",
        marker={"size": 9, "color": COLOURS[0]},
        error_x=_whiskers(values, [each.low for each in own], [each.high for each in own]),
        customdata=[[each.baseline, each.accuracy, each.n, each.p_value] for each in own],
        hovertemplate="%{y}: retains %{x:.3f}<br>accuracy %{customdata[0]:.3f} to %{customdata[1]:.3f}, "
        "n = %{customdata[2]}, p = %{customdata[3]:.3g}<extra></extra>",
    )
    figure = styled(go.Figure(points), "retained accuracy", "", yaxis={"type": "category", "autorange": "reversed"})
    return figure.add_vline(x=1, line={"dash": "dot", "color": "grey"})


def phases_points(found: Sequence[Phases]) -> go.Figure:
    """Retained accuracy by the third in which blocks were skipped, one colour a model.

    Examples:
        >>> import dlens
        >>> found = dlens.phases("trio/diffusion", [5], n=2, max_new_tokens=3)
        >>> phases_points([found]).data[0].x
        ('early', 'middle', 'late')
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, own in enumerate(found):
        kept = list(own.thirds.values())
        values = [each.retained for each in kept]
        figure.add_trace(
            go.Scatter(
                x=list(own.thirds),
                y=values,
                name=own.model,
                mode="lines+markers",
                line={"color": _colour(number), "width": 2},
                marker={"size": 8},
                error_y=_whiskers(values, [each.low for each in kept], [each.high for each in kept]),
                hovertemplate="%{x}: retains %{y:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    return styled(figure, "third in which blocks are skipped", "retained accuracy")


def disruption_by_layer(
    found: Sequence[Disruption], fraction: float, positions: str = "deciding", axis: str = "layer"
) -> go.Figure:
    """Cosine of the changed stream with the clean one by layer, one line a model, with its interval as a band.

    Args:
        found: one result a model.
        fraction: of tokens decided, one that the results hold.
        positions: "all", "prompt", "decoded" or "deciding".
        axis: "layer", or "depth" for models of different depth.

    Examples:
        >>> import dlens
        >>> found = dlens.disruption("trio/ar", [5], ["Once upon", "A fox"], fractions=[0.5], max_new_tokens=4)
        >>> disruption_by_layer([found], fraction=0.5).layout.xaxis.title.text
        'layer'
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, own in enumerate(found):
        data = own.data.sel(fraction=fraction, positions=positions)
        x = relative_depth(own.n_layers).tolist() if _known(axis) == "depth" else data["layer"].values.tolist()
        low, high = data["low"].values.tolist(), data["high"].values.tolist()
        band = {"line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "mode": "lines"}
        figure.add_trace(go.Scatter(x=x, y=low, **band))
        figure.add_trace(go.Scatter(x=x, y=high, fill="tonexty", fillcolor=_faint(_colour(number)), **band))
        figure.add_trace(_line(x, data["cosine"].values.tolist(), own.model, number, axis))
    return styled(figure, _AXES[axis], "cosine with the run as it is")


def disruption_by_fraction(found: Sequence[Disruption], positions: str = "deciding") -> go.Figure:
    """Cosine of the changed stream with the clean one after the last block, by the share of tokens decided.

    Examples:
        >>> import dlens
        >>> found = dlens.disruption("trio/ar", [5], ["Once upon", "A fox"], fractions=[0.0, 0.5], max_new_tokens=4)
        >>> list(disruption_by_fraction([found]).data[-1].x)
        [0.0, 0.5]
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, own in enumerate(found):
        data = own.data.sel(positions=positions).isel(layer=-1)
        values = data["cosine"].values.tolist()
        figure.add_trace(
            go.Scatter(
                x=data["fraction"].values.tolist(),
                y=values,
                name=own.model,
                mode="lines+markers",
                line={"color": _colour(number), "width": 2},
                error_y=_whiskers(values, data["low"].values.tolist(), data["high"].values.tolist()),
                hovertemplate="%{x:.0%} decided: %{y:.4f}<extra>%{fullData.name}</extra>",
            )
        )
    return styled(figure, "share of tokens decided", "cosine after the last block")


def effect_bars(found: Sequence[Collapse], value: str = "accuracy") -> go.Figure:
    """What each ablation does, one colour a model.

    Args:
        found: one result a model.
        value: a number of `Collapse.table()`, such as "accuracy", "loss", "repetition" or "distinct_2".

    Examples:
        >>> import dlens
        >>> found = dlens.collapse("trio/ar", n=2, n_random=0, max_new_tokens=2, texts=["Once upon a time"])
        >>> effect_bars([found], "loss").data[0].name
        'trio/ar'
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, own in enumerate(found):
        rows = own.table()
        figure.add_trace(
            go.Bar(
                x=[row[value] for row in rows],
                y=[row["name"] for row in rows],
                name=own.model,
                orientation="h",
                marker={"color": _colour(number)},
                customdata=[", ".join(map(str, row["channels"])) for row in rows],
                hovertemplate="%{y}: %{x:.3f}<br>channels %{customdata}<extra>%{fullData.name}</extra>",
            )
        )
    title = value.replace("_", "-")
    figure = styled(figure, title, "", yaxis={"type": "category", "autorange": "reversed"})
    return figure.update_layout(height=max(380, 40 * sum(len(own.effects) for own in found)))


def channel_by_layer(found: Sequence[Collapse], value: str = "energy_share", axis: str = "layer") -> go.Figure:
    """Where each model's outlier channel lives, one line a model.

    Args:
        found: one result a model.
        value: "energy_share", "peak_share" or "steps_led".
        axis: "layer" or "depth".

    Examples:
        >>> import dlens
        >>> found = dlens.collapse("trio/ar", n=2, n_random=0, max_new_tokens=2, texts=["Once upon a time"])
        >>> len(channel_by_layer([found]).data[0].y)
        16
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, own in enumerate(found):
        data = own.where[value]
        depths = relative_depth(len(data)) if _known(axis) == "depth" else data["layer"].values
        figure.add_trace(
            _line(depths.tolist(), data.values.tolist(), f"{own.model}, channel {own.channel}", number, axis)
        )
    return styled(figure, _AXES[axis], value.replace("_", " "))


def comparison_lines(table: Comparison, value: str, axis: str = "depth") -> go.Figure:
    """A number of the profiles, one line a model, over the layer or over relative depth.

    Args:
        table: what `dlens.compare` returned.
        value: one of its columns, such as "cosine" or "top_share".
        axis: "layer" or "depth".

    Examples:
        >>> import dlens
        >>> table = dlens.compare({"ar": "trio/ar", "dllm": "trio/diffusion"}, ["Once upon a time"])
        >>> [line.name for line in comparison_lines(table, "cosine").data]
        ['ar', 'dllm']
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, name in enumerate(table.profiles):
        rows = [row for row in table.table() if row["model"] == name and value in row]
        x = [row[_known(axis)] for row in rows]
        figure.add_trace(_line(x, [row[value] for row in rows], name, number, axis))
    return styled(figure, _AXES[axis], value.replace("_", " "))


def _line(x: list[float], y: list[float], name: str, number: int, axis: str) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode="lines+markers",
        line={"color": _colour(number), "width": 2},
        marker={"size": 5},
        hovertemplate=_AXES[axis] + " %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
    )


def _known(axis: str) -> str:
    if axis not in _AXES:
        raise ValueError(f"axis={axis!r}; expected one of {', '.join(_AXES)}; check the spelling")
    return axis


def _whiskers(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> dict[str, Any]:
    """An interval around points, as plotly wants it: distances, none where there is no interval."""
    above = [end - value for value, end in zip(values, high, strict=True)]
    below = [value - end for value, end in zip(values, low, strict=True)]
    return {"type": "data", "array": above, "arrayminus": below, "symmetric": False}


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.2)"

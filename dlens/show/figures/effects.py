"""Plotly figures of findings, with their intervals: returned, never shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dlens.checks import refuse, require_word
from dlens.findings.effects.collapse import Collapse
from dlens.findings.effects.disruption import Disruption
from dlens.findings.effects.phases import Phases
from dlens.findings.effects.retention import Retention
from dlens.findings.layers.compare import Comparison, relative_depth
from dlens.show.figures.captions import captioned, counted
from dlens.show.figures.statistics import Statistic, bands, lines, whiskers
from dlens.show.figures.style import all_of, nth_colour, spelt, styled

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

T = TypeVar("T")
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

    if not isinstance(kept, Mapping):
        refuse("kept", kept, "a mapping of names to results", "write {'3': dlens.retention(model, [3])}")
    _several(kept.values(), Retention)
    own = _kept("", "", kept)
    points = go.Scatter(
        x=list(own.values),
        y=list(map(spelt, own.places)),
        mode="markers",
        marker={"size": 9, "color": nth_colour(0)},
        error_x=whiskers(own),
        customdata=[[each.baseline, each.accuracy, each.n, each.p_value] for each in kept.values()],
        hovertemplate="%{y}: retains %{x:.3f}<br>accuracy %{customdata[0]:.3f} to %{customdata[1]:.3f}, "
        "n = %{customdata[2]}, p = %{customdata[3]:.3g}<extra></extra>",
    )
    figure = styled(go.Figure(points), own.axis, "", yaxis={"type": "category", "autorange": "reversed"})
    return captioned(figure.add_vline(x=1, line={"dash": "dot", "color": "grey"}), list(kept.items()))


def _several(found: Any, kind: type[T]) -> Sequence[T]:
    """Several results; one alone may stand without a list."""
    return all_of(kind, found, f"pass a list of what dlens.{kind.__name__.lower()} returned")


def _by_model(found: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(own.model, own) for own in found]


def _kept(name: str, along: str, kept: Mapping[Any, Retention]) -> Statistic:
    own = list(kept.values())
    values, low, high = ([getattr(each, part) for each in own] for part in ("retained", "low", "high"))
    return Statistic(name, "retained accuracy", along, list(kept), values, low, high)


def phases_points(found: Sequence[Phases]) -> go.Figure:
    """Retained accuracy by the third in which blocks were skipped, one colour a model.

    Examples:
        >>> import dlens
        >>> found = dlens.phases("trio/diffusion", [5], n=2, max_new_tokens=3)
        >>> phases_points([found]).data[0].x
        ('early', 'middle', 'late')
    """
    found = _several(found, Phases)
    drawn = lines([_kept(own.model, "third in which blocks are skipped", own.thirds) for own in found])
    return captioned(drawn, _by_model(found))


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
    drawn, found = [], _several(found, Disruption)
    for own in found:
        data = _at(_at(own.data, "fraction", fraction), "positions", positions)
        drawn.append(_cosines(own.model, "cosine with the run as it is", *_places(own.n_layers, axis), data))
    return captioned(bands(drawn), _by_model(found))


def _at(data: Any, dim: str, label: Any) -> Any:
    """What a result holds at one place of an axis.

    Raises:
        ValueError: it has no such place.
    """
    labels = data[dim].values.tolist()
    if not any(type(label) in (str, int, float) and label == own for own in labels):
        refuse(dim, label, f"one of {', '.join(map(str, labels))}", "name one that the result holds")
    return data.sel({dim: label})


def _cosines(name: str, label: str, along: str, places: list[float], data: Any) -> Statistic:
    values, low, high = (data[part].values.tolist() for part in ("cosine", "low", "high"))
    return Statistic(name, label, along, places, values, low, high, digits=4)


def _places(n_layers: int, axis: str) -> tuple[str, list[float]]:
    """What an axis is called, and where each layer stands on it.

    Raises:
        ValueError: an unknown axis.
    """
    require_word("axis", axis, _AXES)
    return _AXES[axis], relative_depth(n_layers).tolist() if axis == "depth" else list(range(n_layers))


def disruption_by_fraction(found: Sequence[Disruption], positions: str = "deciding") -> go.Figure:
    """Cosine of the changed stream with the clean one after the last block, by the share of tokens decided.

    Examples:
        >>> import dlens
        >>> found = dlens.disruption("trio/ar", [5], ["Once upon", "A fox"], fractions=[0.0, 0.5], max_new_tokens=4)
        >>> list(disruption_by_fraction([found]).data[-1].x)
        [0.0, 0.5]
    """
    drawn, found = [], _several(found, Disruption)
    for own in found:
        data = _at(own.data, "positions", positions).isel(layer=-1)
        places = data["fraction"].values.tolist()
        drawn.append(_cosines(own.model, "cosine after the last block", "share of tokens decided", places, data))
    return captioned(lines(drawn), _by_model(found))


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

    figure, found = go.Figure(), _several(found, Collapse)
    for number, own in enumerate(found):
        rows = own.table()
        require_word("value", value, [name for name, held in rows[0].items() if isinstance(held, (int, float))])
        figure.add_trace(
            go.Bar(
                x=[row[value] for row in rows],
                y=[spelt(row["name"]) for row in rows],
                name=spelt(own.model),
                orientation="h",
                marker={"color": nth_colour(number)},
                customdata=[", ".join(map(str, row["channels"])) for row in rows],
                hovertemplate="%{y}: %{x:.3f}<br>channels %{customdata}<extra>%{fullData.name}</extra>",
            )
        )
    title = value.replace("_", "-")
    figure = styled(figure, title, "", yaxis={"type": "category", "autorange": "reversed"})
    figure.update_layout(height=max(380, 40 * sum(len(own.effects) for own in found)))
    return captioned(figure, _by_model(found))


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
    drawn, found = [], _several(found, Collapse)
    for own in found:
        require_word("value", value, map(str, own.where.data_vars))
        values = own.where[value].values.tolist()
        name = f"{own.model}, channel {own.channel}"
        drawn.append(Statistic(name, value.replace("_", " "), *_places(len(values), axis), values, digits=4))
    return captioned(lines(drawn), [(own.model, _continued(own.where.attrs)) for own in found])


def _continued(about: Mapping[Any, Any]) -> str:
    """What a model decoded while it was seen where its channel lives."""
    texts = counted(about["n_prompts"], "text")
    return f"{texts}, continued by {about['new_tokens']} tokens, seed {about['seed']}"


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
    if not isinstance(table, Comparison):
        refuse("table", table, "a Comparison", "pass what dlens.compare returned")
    require_word("value", value, map(str, table.to_xarray().data_vars))
    drawn = []
    for name in table.profiles:
        rows = [row for row in table.table() if row["model"] == name and value in row]
        values = [row[value] for row in rows]
        drawn.append(Statistic(name, value.replace("_", " "), *_places(len(rows), axis), values, digits=4))
    return captioned(lines(drawn), list(table.profiles.items()))

"""What stands between numbers and figures: numbers with their names, their unit and their interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from dlens.checks import check_fields, finite, refuse, several, whole
from dlens.show.figures.style import COLOURS, all_of, faint, nth_colour, spelt, styled

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Statistic", "bands", "lines", "points", "statistics_table", "whiskers"]

# Told apart where colours begin anew.
_SYMBOLS = ("circle", "circle-open")
_DASHES = ("solid", "dash", "dot", "dashdot")


@final
@dataclass(frozen=True)
class Statistic:
    """Numbers of one kind, labelled: what they are, where each stands, how sure each is.

    Args:
        name: whose numbers they are, for a legend.
        label: what they are, for their axis.
        along: what the places are, for the other axis.
        places: where each number stands: layers, distances, or names.
        values: the numbers.
        low, high: their interval at each place; None where there is none.
        unit: of the numbers; "" where they have none.
        notes: what else there is to say, place by place.
        digits: decimals that are shown.

    Raises:
        ValueError: parts of different lengths, or one end of an interval without the other.

    Examples:
        >>> loss = Statistic("trio/ar", "loss", "layer", [3, 5], [2.5, 2.25], [2.25, 2.0], [2.75, 2.5], unit="nats")
        >>> loss.axis, loss.after(1).places
        ('loss, nats', [5])
    """

    name: str
    label: str
    along: str
    places: Sequence[float] | Sequence[str]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    unit: str = ""
    notes: Sequence[str] = ()
    digits: int = 3

    def __post_init__(self) -> None:
        check_fields(self, "write Statistic('loss of trio/ar', 'loss', 'layer', [3, 5], [2.5, 2.25])")
        parts = {"values": self.values, "low": self.low, "high": self.high, "notes": self.notes or None}
        sizes = {part: len(held) for part, held in parts.items() if held is not None}
        if set(sizes.values()) != {len(self.places)} or (self.low is None) != (self.high is None):
            raise ValueError(
                f"{self.name or 'a statistic'} has {len(self.places)} places and "
                f"{', '.join(f'{n} {part}' for part, n in sizes.items())}; expected as many of each, and low with "
                f"high; give one of each for every place"
            )

    @property
    def axis(self) -> str:
        """What the numbers are, with their unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def after(self, n: int) -> Statistic:
        """The same without the first n places.

        Examples:
            >>> Statistic("", "cosine", "layer", [0, 1], [0.5, 0.75]).after(1).values
            [0.75]
        """
        low, high = (None if ends is None else ends[n:] for ends in (self.low, self.high))
        return replace(self, places=self.places[n:], values=self.values[n:], low=low, high=high, notes=self.notes[n:])


def statistics_table(statistics: Sequence[Statistic]) -> tuple[list[str], list[list[Any]]]:
    """The numbers behind a figure: a row for each place, NaN where a statistic does not have it.

    Args:
        statistics: along the same places; a column for the values of each, two more where it has an interval.

    Returns:
        Names of the columns, and the rows.

    Examples:
        >>> statistics_table([Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25])])
        (['layer', 'ar'], [[3, 2.5], [5, 2.25]])
    """
    statistics = _all(statistics)
    along, _ = _axes(statistics)
    columns: dict[str, dict[Any, float]] = {}
    for own in statistics:
        parts = {"": own.values, " low": own.low, " high": own.high}
        for part, held in parts.items():
            if held is not None:
                columns[own.name + part] = dict(zip(own.places, map(float, held), strict=True))
    places = dict.fromkeys(place for own in statistics for place in own.places)
    return [along, *columns], [[p, *(held.get(p, float("nan")) for held in columns.values())] for p in places]


def bands(
    statistics: Sequence[Statistic], colours: Sequence[int] | None = None, dashes: Sequence[int] | None = None
) -> go.Figure:
    """Lines, each with its interval as a band.

    Args:
        statistics: of one kind, along the same axis.
        colours: number of the colour of each; each its own by default.
        dashes: number of the dash of each; by default another for each round of colours.

    Raises:
        ValueError: statistics of different kinds.

    Examples:
        >>> loss = Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25], [2.25, 2.0], [2.75, 2.5])
        >>> bands([loss]).data[-1].y
        (2.5, 2.25)
    """
    import plotly.graph_objects as go

    figure, statistics = go.Figure(), _all(statistics)
    axes = _axes(statistics)
    for what, numbers in {"colours": colours, "dashes": dashes}.items():
        if numbers is not None and not (several(numbers) and len(numbers) >= len(statistics) and _whole(numbers)):
            refuse(what, numbers, "a whole number for each statistic", f"write {what}={list(range(len(statistics)))}")
    for number, own in enumerate(statistics):
        colour = nth_colour(number if colours is None else colours[number])
        dash = _DASHES[(number // len(COLOURS) if dashes is None else dashes[number]) % len(_DASHES)]
        if own.low is not None and own.high is not None:
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            edge |= {"x": list(map(spelt, own.places)), "legendgroup": spelt(own.name)}
            figure.add_trace(go.Scatter(y=list(own.low), **edge))
            figure.add_trace(go.Scatter(y=list(own.high), fill="tonexty", fillcolor=faint(colour), **edge))
        figure.add_trace(_line(own, colour, dash, marker={"size": 4}))
    return styled(figure, *axes)


def lines(statistics: Sequence[Statistic], colours: Sequence[str] = COLOURS) -> go.Figure:
    """Lines, with whiskers where there is an interval; notes are shown on hover.

    Args:
        statistics: of one kind, along the same axis.
        colours: of the lines, in turn.

    Raises:
        ValueError: statistics of different kinds.

    Examples:
        >>> lines([Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25])]).layout.yaxis.title.text
        'loss'
    """
    import plotly.graph_objects as go

    figure, statistics = go.Figure(), _all(statistics)
    axes = _axes(statistics)
    if not several(colours) or len(colours) == 0 or not all(isinstance(colour, str) for colour in colours):
        refuse("colours", colours, "colours as text", "leave colours= out, or write colours=['#0072B2']")
    for number, own in enumerate(statistics):
        colour = colours[number % len(colours)]
        figure.add_trace(_line(own, colour, "solid", marker={"size": 5}, error_y=whiskers(own)))
    return styled(figure, *axes)


def _line(own: Statistic, colour: str, dash: str, **look: Any) -> go.Scatter:
    import plotly.graph_objects as go

    named = any(isinstance(place, str) for place in own.places)
    hover = "%{x}" if named else f"{spelt(own.along)} %{{x:.3g}}"
    hover += f": %{{y:.{own.digits}f}}"
    if own.low is not None and own.high is not None:
        look["customdata"] = list(zip(own.low, own.high, strict=True))
        hover += f" (%{{customdata[0]:.{own.digits}f}} to %{{customdata[1]:.{own.digits}f}})"
    if own.notes:
        look["text"] = list(map(spelt, own.notes))
        hover += " %{text}"
    return go.Scatter(
        x=list(map(spelt, own.places)),
        y=list(own.values),
        name=spelt(own.name),
        legendgroup=spelt(own.name),
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=f"{hover}<extra>%{{fullData.name}}</extra>",
        **look,
    )


def points(statistics: Sequence[Statistic], at: float | None = None) -> go.Figure:
    """Numbers with their intervals, a row for each place and a colour for each statistic.

    Args:
        statistics: of one kind; their places are names.
        at: where a dotted line is drawn.

    Raises:
        ValueError: statistics of different kinds.

    Examples:
        >>> kept = Statistic("ar", "accuracy kept", "", ["apart", "in a row"], [0.9, 0.5], [0.8, 0.25], [1, 0.75])
        >>> points([kept], at=1).layout.yaxis.ticktext
        ('apart', 'in a row')
    """
    import plotly.graph_objects as go

    figure, statistics = go.Figure(), _all(statistics)
    _, axis = _axes(statistics)
    if at is not None and finite(at) is None:
        refuse("at", at, "a number", "leave at= out, or write at=1")
    names = list(dict.fromkeys(name for own in statistics for name in own.places))
    for number, own in enumerate(statistics):
        shift = 0.22 * (number - (len(statistics) - 1) / 2)
        nothing = [float("nan")] * len(own.values)
        low, high = (nothing if ends is None else ends for ends in (own.low, own.high))
        notes = own.notes or [""] * len(own.values)
        figure.add_trace(
            go.Scatter(
                x=list(own.values),
                y=[names.index(name) + shift for name in own.places],
                name=spelt(own.name),
                mode="markers",
                marker={"size": 8, "color": nth_colour(number), "symbol": _SYMBOLS[number // len(COLOURS) % 2]},
                error_x=whiskers(own),
                customdata=list(zip(map(spelt, own.places), low, high, map(spelt, notes), strict=True)),
                hovertemplate="%{customdata[0]}: %{x:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f}) "
                "%{customdata[3]}<extra>%{fullData.name}</extra>",
            )
        )
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": list(map(spelt, names))}
    styled(figure, axis, "", yaxis=ticks | {"range": [len(names) - 0.4, -0.6]})
    if at is not None:
        figure.add_vline(x=at, line={"dash": "dot", "color": "grey"})
    return figure


def whiskers(statistic: Statistic) -> dict[str, Any] | None:
    """An interval around points, as plotly wants it: distances from the values; None where there is none.

    Examples:
        >>> own = Statistic("", "loss", "layer", [3], [2.5], [2.25], [3.0])
        >>> whiskers(own)["array"], whiskers(own)["arrayminus"]
        ([0.5], [0.25])
    """
    if statistic.low is None or statistic.high is None:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, high in zip(statistic.values, statistic.high, strict=True)],
        "arrayminus": [value - low for value, low in zip(statistic.values, statistic.low, strict=True)],
        "width": 3,
    }


def _all(statistics: Any) -> Sequence[Statistic]:
    return all_of(Statistic, statistics, "make them with dlens.show.figures.Statistic")


def _whole(numbers: Sequence[Any]) -> bool:
    return all(whole(number) is not None for number in numbers)


def _axes(statistics: Sequence[Statistic]) -> tuple[str, str]:
    """What all places are, and what all numbers are.

    Raises:
        ValueError: there is not one answer.
    """
    found = {(own.along, own.axis) for own in statistics}
    if len(found) > 1:
        came = " and ".join(f"{axis} by {along}" if along else axis for along, axis in sorted(found))
        raise ValueError(f"a figure got statistics of {came}; expected one kind; draw each kind in a figure of its own")
    return found.pop() if found else ("", "")

"""A plotly figure laid out as a drawing: axes, legend, lines with bands and whiskers, bars and heat maps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from dlens.checks import refuse
from dlens.show.figures.captions import caption_of
from dlens.show.figures.drawing import Box, Dot, Drawing, Key, Line, Mark, Series, Words
from dlens.show.figures.scales import Scale, finite_of, scale_of
from dlens.show.figures.traced import BACK, DASHES, MARKS, Page, colour_bars, name_of, values_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["drawn"]

_SCALE = 64
# How far lines of a caption are apart, in sizes of its words, and how many there are at most.
_LINE, _MOST_LINES = 1.3, 3


def drawn(figure: go.Figure, width: float = 720, height: float | None = None, size: float = 12) -> Drawing:
    """Lay out a figure of `dlens.show.figures`, or another of lines, markers, bars and heat maps.

    Below it stands what it is of, where it says so.

    Args:
        figure: of plotly.
        width, height: in pixels; the figure's own height by default. What stands below comes on top of it.
        size: of words, in pixels.

    Raises:
        ValueError: no figure, or one with traces of other kinds.

    Examples:
        >>> from dlens.show.figures import Statistic, lines
        >>> drawing = drawn(lines([Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25])]))
        >>> drawing.width, [series.name for series in drawing.series]
        (720, ['ar'])
    """
    traces = _checked(figure)
    layout: Any = figure.layout
    foot = _wrapped(caption_of(figure), width, size)
    below = _LINE * size * len(foot) + bool(foot) * 0.5 * size
    height = float(height or layout.height or 380) + below
    across, up = _scales(traces, layout)
    owners = [name_of(trace) for trace in traces]
    # Bands have the name of their line.
    names = list(dict.fromkeys(owners))
    rows = _legend_rows(names, width, size) if layout.showlegend else []
    page = _placed(across, up, width, height - below, size, len(rows), any(trace.type == "heatmap" for trace in traces))
    marks = {name: [] for name in names}
    for number, trace in enumerate(traces):
        marks[owners[number]] += MARKS[trace.type](page, traces, number)
    series = [Series(name, own) for name, own in marks.items()]
    back = [*_furniture(page, width), *_guides(page, layout), *colour_bars(page, traces)]
    back += [
        Words(8, height - _LINE * size * (len(foot) - line - 0.5), text, size, ink="quiet")
        for line, text in enumerate(foot)
    ]
    return Drawing(width, height, back, series, list(_keys(rows, names, dict(zip(owners, traces, strict=True)), size)))


def _checked(figure: Any) -> Sequence[Any]:
    import plotly.graph_objects as go

    if not isinstance(figure, go.Figure):
        refuse("figure", figure, "a figure of plotly", "pass what a function of dlens.show.figures returned")
    others = sorted({trace.type for trace in figure.data} - set(MARKS))  # pyright: ignore
    if others:
        raise ValueError(
            f"the figure has traces of kind {', '.join(others)}; expected {', '.join(MARKS)}; draw others with "
            f"plotly's own write_html"
        )
    return figure.data  # pyright: ignore


def _scales(traces: Sequence[Any], layout: Any) -> tuple[Scale, Scale]:
    xs, ys = ([values_of(trace, axis) for trace in traces] for axis in "xy")
    ends_x, ends_y = ([end for trace in traces for end in _ends(trace, axis)] for axis in "xy")
    ends_x += [float(shape.x0) for shape in layout.shapes if shape.x0 == shape.x1]
    flush = any(trace.type == "heatmap" for trace in traces)
    halves = 0.5 if flush else 0.0
    across = scale_of(layout.xaxis, xs, ends_x, 0 if flush else 0.03)
    up = scale_of(layout.yaxis, ys, ends_y, 0 if flush else 0.05)
    return _widened(across, halves), _widened(up, halves)


def _widened(scale: Scale, by: float) -> Scale:
    """Half a cell more at both ends of an axis of numbers, where cells stand on it."""
    return scale if scale.names or not by else replace(scale, low=scale.low - by, high=scale.high + by)


def _ends(trace: Any, axis: str) -> Iterator[float]:
    """Numbers that an axis must hold beside those of its trace: ends of whiskers, and where bars begin."""
    whisker = trace[f"error_{axis}"] if trace.type in ("scatter", "bar") else None
    if whisker is not None and whisker.array is not None:
        for value, over, under in zip(values_of(trace, axis), whisker.array, whisker.arrayminus, strict=True):
            yield from (finite_of(value) + finite_of(over), finite_of(value) - finite_of(under))
    if trace.type == "bar" and (axis == "x") == (trace.orientation == "h"):
        yield 0.0


def _wide(text: str, size: float) -> float:
    """How wide words are, near enough."""
    return 0.56 * size * len(text)


def _wrapped(text: str, width: float, size: float) -> list[str]:
    """Words in lines that fit, and an ellipsis where they are too many."""
    if not text:
        return []
    return wrap(text, max(20, int((width - 16) / _wide("x", size))), max_lines=_MOST_LINES, placeholder=" …")


def _placed(across: Scale, up: Scale, width: float, height: float, size: float, n_rows: int, barred: bool) -> Page:
    left = max((_wide(text, size) for _, text in up.ticks), default=0) + 8
    left += 1.6 * size if up.title else 0
    right = _SCALE if barred else 10
    top = n_rows * 1.6 * size + 0.8 * size
    labels = max((_wide(text, size) for _, text in across.ticks), default=0)
    turned = _turned(across, width - left - right, size)
    below = 10 + (labels if turned else 1.2 * size) + (1.7 * size if across.title else 0)
    # Words along a narrow page take half of it at most.
    left, below = min(left, 0.5 * width), min(below, 0.5 * height)
    return Page(left, top, width - left - right, height - top - below, across, up, size)


def _turned(across: Scale, room: float, size: float) -> bool:
    """Whether names along the axis stand upright, as they have no room side by side."""
    widest = max((_wide(text, size) for _, text in across.ticks), default=0) + 8
    return bool(across.names or across.ticks) and widest * len(across.ticks) > room and _is_named(across)


def _is_named(across: Scale) -> bool:
    return any(not re.fullmatch(r"[−\d.]+", text) for _, text in across.ticks)


def _furniture(page: Page, width: float) -> Iterator[Mark]:
    """Grid, numbers and names along both axes, and their titles."""
    end_x, end_y = page.x + page.width, page.y + page.height
    for value, text in _spaced(page.up, page.height, 1.25 * page.size):
        y = page.y + (1 - page.up.share(value if not page.up.names else page.up.names[int(value)])) * page.height
        yield Line([(page.x, y), (end_x, y)], "line", 1)
        yield Words(page.x - 6, y, text, page.size, "end")
    turned = _turned(page.across, page.width, page.size)
    widest = max((_wide(text, page.size) for _, text in page.across.ticks), default=0) + 8
    for value, text in _spaced(page.across, page.width, 1.25 * page.size if turned else widest):
        x = page.x + page.across.share(value if not page.across.names else page.across.names[int(value)]) * page.width
        yield Line([(x, end_y), (x, end_y + 4)], "line", 1)
        if turned:
            yield Words(x, end_y + 8, text, page.size, "end", turned=True)
        else:
            yield Words(x, end_y + 6 + 0.6 * page.size, text, page.size, "middle")
    yield Line([(page.x, page.y), (page.x, end_y), (end_x, end_y)], "line", 1)
    below = 10 + (min(widest, 0.5 * width) if turned else 1.2 * page.size)
    if page.across.title:
        yield Words(page.x + page.width / 2, end_y + below + 0.6 * page.size, page.across.title, page.size, "middle")
    if page.up.title:
        # A title that is longer than its axis goes on below it, not into the legend.
        middle = max(page.y + page.height / 2, page.y + _wide(page.up.title, page.size) / 2)
        yield Words(0.8 * page.size, middle, page.up.title, page.size, "middle", turned=True)


def _spaced(scale: Scale, room: float, least: float) -> Sequence[tuple[float, str]]:
    """Every n-th tick, so many that each has room."""
    every = max(1, -int(-least * len(scale.ticks) // max(room, 1)))
    return scale.ticks[::every]


def _guides(page: Page, layout: Any) -> Iterator[Mark]:
    """Dotted lines at one place of the axis across."""
    for shape in layout.shapes:
        if shape.x0 == shape.x1:
            x = page.x + page.across.share(shape.x0) * page.width
            yield Line([(x, page.y), (x, page.y + page.height)], BACK, 1.5, DASHES["dot"])


def _legend_rows(names: Sequence[str], width: float, size: float) -> list[list[tuple[int, float]]]:
    """The legend in rows: number of a series, and where its key begins."""
    rows: list[list[tuple[int, float]]] = [[]]
    x = 8.0
    for number, name in enumerate(names):
        wide = 34 + _wide(name, size) + 14
        if rows[-1] and x + wide > width:
            rows.append([])
            x = 8.0
        rows[-1].append((number, x))
        x += wide
    return rows


def _keys(
    rows: Sequence[Sequence[tuple[int, float]]], names: Sequence[str], shown: Mapping[str, Any], size: float
) -> Iterator[Key]:
    for line, row in enumerate(rows):
        y = (line + 0.5) * 1.6 * size
        for number, x in row:
            yield Key(number, [*_sample(shown[names[number]], x, y), Words(x + 34, y, names[number], size)])


def _sample(trace: Any, x: float, y: float) -> Iterator[Mark]:
    if trace.type == "bar":
        yield Box(x + 4, y - 5, 20, 10, trace.marker.color or BACK)
        return
    colour = trace.line.color or trace.marker.color or BACK
    if "lines" in (trace.mode or "lines"):
        yield Line([(x, y), (x + 28, y)], colour, 2, DASHES.get(trace.line.dash, ()))
    if "markers" in (trace.mode or "lines"):
        yield Dot(x + 14, y, 3.5, colour, hollow=str(trace.marker.symbol or "").endswith("-open"))

"""What each trace of a plotly figure shows on a page: lines with bands and whiskers, bars, heat maps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, nan
from typing import Any

from dlens.show.figures.drawing import Area, Box, Dot, Line, Mark, Words
from dlens.show.figures.scales import Scale, finite_of, plain_words, words_of

__all__ = ["BACK", "DASHES", "MARKS", "Page", "colour_bars", "name_of", "values_of"]

DASHES = {"dash": (7.0, 4.0), "dot": (2.0, 3.0), "dashdot": (7.0, 3.0, 2.0, 3.0)}
BACK = "#8c959f"
_BAR = 0.8
_EDGE = 1e-6
# As many colours as a screen tells apart.
_STEPS = 255


@dataclass(frozen=True)
class Page:
    """Where the numbers of a figure stand, in pixels.

    Args:
        x, y, width, height: of the part within the axes.
        across, up: the axes.
        size: of words.
    """

    x: float
    y: float
    width: float
    height: float
    across: Scale
    up: Scale
    size: float

    def at(self, x: Any, y: Any) -> tuple[float, float]:
        """Where a point is; NaN for one beyond the axes."""
        across, up = self.across.share(x), self.up.share(y)
        known = -_EDGE <= across <= 1 + _EDGE and -_EDGE <= up <= 1 + _EDGE
        return (self.x + across * self.width, self.y + (1 - up) * self.height) if known else (nan, nan)


def name_of(trace: Any) -> str:
    return plain_words(trace.name or trace.legendgroup or "")


def values_of(trace: Any, axis: str) -> Sequence[Any]:
    own = getattr(trace, axis)
    if own is None:
        return list(range(len(trace.z[0] if axis == "x" else trace.z))) if trace.type == "heatmap" else []
    return list(own)


def _scatter(page: Page, traces: Sequence[Any], number: int) -> Iterator[Mark]:
    trace = traces[number]
    xs, ys = values_of(trace, "x"), values_of(trace, "y")
    colour = trace.line.color or trace.marker.color or BACK
    if trace.fill == "tonexty":
        lower = values_of(traces[number - 1], "y")
        yield from _band(page, xs, lower, ys, colour if trace.fillcolor is None else _solid(trace.fillcolor))
        return
    places = [page.at(x, y) for x, y in zip(xs, ys, strict=True)]
    yield from _whiskers(page, trace, xs, ys, places, colour)
    mode = trace.mode or "lines"
    if "lines" in mode and trace.line.width != 0:
        yield from _runs(places, colour, trace.line.width or 2, DASHES.get(trace.line.dash, ()))
    if "markers" in mode:
        hollow, radius = str(trace.marker.symbol or "").endswith("-open"), (trace.marker.size or 6) / 2
        said = _teller(trace)
        for point, place in enumerate(places):
            if all(map(isfinite, place)):
                yield Dot(*place, radius, colour, said(point, x=xs[point], y=ys[point]), hollow)


def _solid(colour: str) -> str:
    """A colour without its transparency: rgba(0, 114, 178, 0.18) as rgb(0, 114, 178)."""
    numbers = re.findall(r"[\d.]+", colour)
    return f"rgb({', '.join(numbers[:3])})" if colour.startswith("rgba") else colour


def _runs(places: Sequence[tuple[float, float]], colour: str, width: float, dash: tuple[float, ...]) -> Iterator[Mark]:
    """Lines through neighbours that are known."""
    for known, run in groupby(places, lambda place: all(map(isfinite, place))):
        if known and len(points := list(run)) > 1:
            yield Line(points, colour, width, dash)


def _band(page: Page, xs: Sequence[Any], low: Sequence[Any], high: Sequence[Any], colour: str) -> Iterator[Mark]:
    edges = [(page.at(x, a), page.at(x, b)) for x, a, b in zip(xs, low, high, strict=True)]
    for known, run in groupby(edges, lambda edge: all(isfinite(part) for place in edge for part in place)):
        if known:
            held = list(run)
            yield Area([below for below, _ in held] + [above for _, above in reversed(held)], colour)


def _whiskers(page: Page, trace: Any, xs: Any, ys: Any, places: Any, colour: str) -> Iterator[Mark]:
    for axis in "xy":
        bar = trace[f"error_{axis}"]
        if bar is None or bar.array is None:
            continue
        for point, (over, under) in enumerate(zip(list(bar.array), list(bar.arrayminus), strict=True)):
            value, place = finite_of((xs if axis == "x" else ys)[point]), places[point]
            ends = [value - finite_of(under), value + finite_of(over)]
            if not all(map(isfinite, (*ends, *place))):
                continue
            if axis == "x":
                a, b = (page.x + page.across.share(end) * page.width for end in ends)
                stem, caps = [(a, place[1]), (b, place[1])], [[(e, place[1] - 4), (e, place[1] + 4)] for e in (a, b)]
            else:
                a, b = (page.y + (1 - page.up.share(end)) * page.height for end in ends)
                stem, caps = [(place[0], a), (place[0], b)], [[(place[0] - 3, e), (place[0] + 3, e)] for e in (a, b)]
            yield from (Line(points, colour, 1.5) for points in (stem, *caps))


def _bars(page: Page, traces: Sequence[Any], number: int) -> Iterator[Mark]:
    trace, bars = traces[number], [own for own in traces if own.type == "bar"]
    flat = trace.orientation == "h"
    scale, room = (page.up, page.height) if flat else (page.across, page.width)
    thick = _BAR * room / abs(scale.high - scale.low) / len(bars)
    shift = (bars.index(trace) - (len(bars) - 1) / 2) * thick
    said, colour = _teller(trace), trace.marker.color or BACK
    for point, (x, y) in enumerate(zip(values_of(trace, "x"), values_of(trace, "y"), strict=True)):
        (ax, ay), (bx, by) = page.at(0 if flat else x, y if flat else 0), page.at(x, y)
        words = said(point, x=x, y=y)
        if not all(map(isfinite, (bx, by))):
            continue
        if flat:
            yield Box(min(ax, bx), by + shift - thick / 2, abs(bx - ax), thick, colour, words)
        else:
            yield Box(bx + shift - thick / 2, min(ay, by), thick, abs(by - ay), colour, words)


def _heat(page: Page, traces: Sequence[Any], number: int) -> Iterator[Mark]:
    trace = traces[number]
    xs, ys = values_of(trace, "x"), values_of(trace, "y")
    low, high = _range(trace)
    wide, tall = page.width / len(xs), page.height / len(ys)
    said, numbers = _teller(trace), trace.z
    shades = _shades(trace)
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            value = finite_of(numbers[row][column])
            colour = shades((value - low) / (high - low or 1)) if isfinite(value) else "line"
            middle_x, middle_y = page.at(x, y)
            words = said((row, column), x=x, y=y, z=value)
            # A little more than a cell, so that no seam shows between two.
            yield Box(middle_x - wide / 2, middle_y - tall / 2, wide + 0.4, tall + 0.4, colour, words)


def _range(trace: Any) -> tuple[float, float]:
    known = [number for row in trace.z for number in map(finite_of, row) if isfinite(number)] or [0.0, 1.0]
    if trace.zmid is not None:
        far = max(abs(number - trace.zmid) for number in known) or 1.0
        return trace.zmid - far, trace.zmid + far
    low = min(known) if trace.zmin is None else trace.zmin
    return float(low), float(max(known) if trace.zmax is None else trace.zmax)


def _shades(trace: Any) -> Callable[[float], str]:
    """The colours of a heat map, by the share of its range."""
    from plotly.colors import sample_colorscale

    scale = "Viridis" if trace.colorscale is None else [list(step) for step in trace.colorscale]
    steps = [str(colour) for colour in sample_colorscale(scale, [step / _STEPS for step in range(_STEPS + 1)])]
    return lambda share: steps[round(min(max(share, 0.0), 1.0) * _STEPS)]


def colour_bars(page: Page, traces: Sequence[Any]) -> Iterator[Mark]:
    """What the colours of a heat map stand for."""
    for trace in traces:
        if trace.type != "heatmap":
            continue
        low, high = _range(trace)
        x, steps, shades = page.x + page.width + 12, 40, _shades(trace)
        for step in range(steps):
            y = page.y + page.height * (1 - (step + 1) / steps)
            yield Box(x, y, 12, page.height / steps + 0.4, shades((step + 0.5) / steps))
        for value, y in ((low, page.y + page.height - 6), (high, page.y + 6)):
            yield Words(x + 16, y, words_of(value, ".2g"), page.size)
        title = plain_words(trace.colorbar.title.text or "")
        yield Words(x + 24, page.y + page.height / 2, title, page.size, "middle", turned=True)


MARKS = {"scatter": _scatter, "bar": _bars, "heatmap": _heat}


def _teller(trace: Any) -> Callable[..., str]:
    """What plotly would say of a point, by the trace's template: a function of the point and of what stands there.

    What the trace holds is read once, as plotly looks up every part anew.
    """
    body, _, extra = (trace.hovertemplate or "%{y}<extra></extra>").partition("<extra>")
    who = f"{name_of(trace)}: " if "fullData.name" in extra and name_of(trace) else ""
    parts = re.split(r"%\{([^}:]+)(?::([^}]*))?\}", body.strip())
    held = {name: trace[name] for name in {part.partition("[")[0] for part in parts[1::3]} - {"x", "y", "z"}}

    def said(point: Any, **values: Any) -> str:
        written = [parts[0]]
        for what, form, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            value = values[what] if what in values else _at(held, what, point)
            written += [words_of(value, "" if isinstance(value, str) else form or ""), text]
        return who + plain_words("".join(written))

    return said


def _at(held: dict[str, Any], what: str, point: Any) -> Any:
    name, _, index = what.partition("[")
    found = held[name]
    for part in point if isinstance(point, tuple) else (point,):
        found = found[part]
    return found[int(index.removesuffix("]"))] if index else found

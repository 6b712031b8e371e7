"""A drawing: lines, areas, dots, boxes and words at places of a page, and the SVG that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["INKS", "Area", "Box", "Dot", "Drawing", "Ink", "Key", "Line", "Mark", "Series", "Words", "svg"]

Ink = Literal["ink", "quiet", "line"]
Points = Sequence[tuple[float, float]]
# What furniture is drawn with; a page may say otherwise of the classes of these names.
INKS: dict[Ink, str] = {"ink": "#1b1f24", "quiet": "#57606a", "line": "#d8dee4"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Line:
    """A line through points; `dash` has lengths of strokes and gaps, none for a solid one."""

    points: Points
    colour: str
    width: float = 2
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Area:
    """What lies within points, in a colour that lets through what is behind it."""

    points: Points
    colour: str
    opacity: float = 0.18


@dataclass(frozen=True)
class Dot:
    """A dot, or a ring where it is hollow, with what is said of it."""

    x: float
    y: float
    radius: float
    colour: str
    words: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Box:
    """A box, with what is said of it."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    words: str = ""


@dataclass(frozen=True)
class Words:
    """Words at a place; turned ones read upwards."""

    x: float
    y: float
    text: str
    size: float
    anchor: Literal["start", "middle", "end"] = "start"
    turned: bool = False
    ink: Ink = "ink"


Mark = Line | Area | Dot | Box | Words


@dataclass(frozen=True)
class Series:
    """All that shows the numbers of one name."""

    name: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Key:
    """What a legend shows of a series: a sample of it, and its name."""

    series: int
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Drawing:
    """A figure as marks, from back to front.

    Args:
        width, height: in pixels of a screen, 96 to an inch.
        back: axes, what stands along them, and whatever belongs to no series.
        series: the numbers.
        keys: the legend.
    """

    width: float
    height: float
    back: Sequence[Mark]
    series: Sequence[Series]
    keys: Sequence[Key] = ()


def svg(drawing: Drawing, label: str = "", *, alone: bool = False) -> Markup:
    """A drawing as SVG.

    Args:
        drawing: what is drawn.
        label: what it shows, for readers who do not see it.
        alone: whether it is a file of its own, rather than a part of a page.

    Examples:
        >>> print(svg(Drawing(20, 10, [], [Series("a", [Dot(5, 5, 2, "#0072B2")])]), "a dot"))
        <svg class="chart" viewBox="0 0 20 10" role="img" aria-label="a dot">...<circle...
    """
    from markupsafe import Markup

    size = f' xmlns="http://www.w3.org/2000/svg" width="{drawing.width:g}" height="{drawing.height:g}"' if alone else ""
    parts = [
        f'<svg class="chart" viewBox="0 0 {drawing.width:g} {drawing.height:g}"{size} role="img" '
        f'aria-label="{escape(label)}">',
        f'<g font-family="{FONT}">',
        *map(_element, drawing.back),
    ]
    for number, own in enumerate(drawing.series):
        parts += [f'<g class="series" data-series="{number}">', *map(_element, own.marks), "</g>"]
    for key in drawing.keys:
        parts += [f'<g class="key" data-series="{key.series}">', *map(_element, key.marks), "</g>"]
    return Markup("".join([*parts, "</g></svg>"]))


@singledispatch
def _element(mark: Mark) -> str:
    raise TypeError(mark)


@_element.register
def _(mark: Line) -> str:
    dash = f' stroke-dasharray="{" ".join(f"{part:g}" for part in mark.dash)}"' if mark.dash else ""
    colour = _paint("stroke", mark.colour)
    return f'<polyline points="{_joined(mark.points)}" fill="none" {colour} stroke-width="{mark.width:g}"{dash}/>'


@_element.register
def _(mark: Area) -> str:
    return f'<polygon points="{_joined(mark.points)}" fill="{mark.colour}" fill-opacity="{mark.opacity:g}"/>'


@_element.register
def _(mark: Dot) -> str:
    place = f'cx="{mark.x:.4g}" cy="{mark.y:.4g}" r="{mark.radius:g}"'
    return f"<circle {place} {_paint('fill', mark.colour)}{_said(mark.words)}/>"


@_element.register
def _(mark: Box) -> str:
    place = f'x="{mark.x:.5g}" y="{mark.y:.5g}" width="{mark.width:.5g}" height="{mark.height:.5g}"'
    return f"<rect {place} {_paint('fill', mark.colour)}{_said(mark.words)}/>"


@_element.register
def _(mark: Words) -> str:
    place = f'x="{mark.x:.5g}" y="{mark.y:.5g}"'
    if mark.turned:
        place += f' transform="rotate(-90 {mark.x:.5g} {mark.y:.5g})"'
    look = f'{_paint("fill", mark.ink)} font-size="{mark.size:g}" text-anchor="{mark.anchor}"'
    return f'<text {place} {look} dominant-baseline="central">{escape(mark.text)}</text>'


def _paint(attribute: str, colour: str) -> str:
    """A colour, or that of a kind of furniture, which a page may change by its class."""
    known = INKS.get(colour)  # pyright: ignore
    return f'class="{attribute}-{colour}" {attribute}="{known}"' if known else f'{attribute}="{colour}"'


def _joined(points: Points) -> str:
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in points)


def _said(words: str) -> str:
    return f' data-words="{escape(words)}"' if words else ""

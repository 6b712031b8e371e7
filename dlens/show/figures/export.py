"""Figures as files: SVG as it is, PDF and PNG through matplotlib."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlens.checks import as_path, refuse, require_word
from dlens.files import check_file, write_text, written
from dlens.show.figures.captions import caption_of
from dlens.show.figures.drawing import INKS, Area, Box, Dot, Drawing, Line, Mark, Words, svg
from dlens.show.figures.layout import drawn

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["save_figure"]

Look = Literal["page", "column", "slide"]
# Width, height and words in pixels, 96 to an inch: a column of a paper is 3.5 inches wide, with words of 8 points.
_LOOKS: dict[str, tuple[float, float | None, float]] = {
    "page": (720, None, 12),
    "column": (336, 230, 10.67),
    "slide": (960, 540, 18),
}
_KINDS = (".svg", ".pdf", ".png")
_PIXELS, _POINTS = 96, 72
_FINER = 4


def save_figure(figure: go.Figure, path: str | Path, look: Look = "page") -> Path:
    """Write a figure as a file for a paper, a slide or a page; offline, without a browser.

    Below stands what is shown, where the figure's results know it: the text or the task, how much of it, and the
    operations. SVG is written by dlens itself; PDF, with its words as text, and PNG need matplotlib.

    Args:
        figure: what a function of `dlens.show.figures` returned, or another of lines, markers, bars and heat maps.
        path: a name that ends in .svg, .pdf or .png.
        look: "page"; "column", for one column of a paper, 3.5 inches wide with words of 8 points; or "slide".

    Returns:
        Where it is.

    Raises:
        ValueError: another ending or look, no figure, or one with traces of other kinds.
        ImportError: PDF or PNG without matplotlib.
        OSError: it cannot be written.

    Examples:
        >>> import tempfile
        >>> from dlens.show.figures import Statistic, lines
        >>> figure = lines([Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25])])
        >>> path = save_figure(figure, tempfile.mkdtemp() + "/loss.svg", look="column")
        >>> path.read_text().startswith("<svg")
        True
    """
    require_word("look", look, _LOOKS)
    given = as_path(path, "path")
    ending = given.suffix.lower()
    if ending not in _KINDS:
        refuse("path", str(given), f"a name that ends in {', '.join(_KINDS)}", "write 'figure.svg'")
    place = check_file(given, given.suffix)
    drawing = drawn(figure, *_LOOKS[look])
    if ending == ".svg":
        return write_text(place, str(svg(drawing, caption_of(figure), alone=True)))
    painted = _painted(drawing)
    with written(place) as beside:
        painted.savefig(beside, format=ending[1:], dpi=_PIXELS * _FINER, transparent=ending == ".pdf")
    return place


def _painted(drawing: Drawing) -> Any:
    """The same drawing by matplotlib, point for point."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "matplotlib is not installed; expected it for PDF and PNG; pip install 'dlens[figures]', or save as .svg"
        ) from error
    # Words stay text, which editors of PDF and readers can search.
    with rc_context({"pdf.fonttype": 42, "font.family": "sans-serif"}):
        paper = Figure(figsize=(drawing.width / _PIXELS, drawing.height / _PIXELS))
        axes: Any = paper.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, drawing.width), ylim=(drawing.height, 0))
        axes.axis("off")
        parts = (*drawing.series, *drawing.keys)
        for order, mark in enumerate((*drawing.back, *(mark for part in parts for mark in part.marks))):
            # Later marks lie above earlier ones, whatever they are.
            _paint(mark, axes, order)
        return paper


@singledispatch
def _paint(mark: Mark, axes: Any, order: int) -> None:
    raise TypeError(mark)


@_paint.register
def _(mark: Line, axes: Any, order: int) -> None:
    xs, ys = zip(*mark.points, strict=True)
    dash = (0, tuple(part / mark.width for part in mark.dash)) if mark.dash else "solid"
    axes.plot(xs, ys, color=_colour(mark.colour), linewidth=_points(mark.width), linestyle=dash, zorder=order)


@_paint.register
def _(mark: Area, axes: Any, order: int) -> None:
    axes.fill(
        *zip(*mark.points, strict=True), color=_colour(mark.colour), alpha=mark.opacity, linewidth=0, zorder=order
    )


@_paint.register
def _(mark: Dot, axes: Any, order: int) -> None:
    from matplotlib.patches import Circle

    look = {"fill": False, "linewidth": _points(2)} if mark.hollow else {"linewidth": 0}
    axes.add_patch(Circle((mark.x, mark.y), mark.radius, color=_colour(mark.colour), zorder=order, **look))


@_paint.register
def _(mark: Box, axes: Any, order: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((mark.x, mark.y), mark.width, mark.height, color=_colour(mark.colour), linewidth=0, zorder=order)
    )


@_paint.register
def _(mark: Words, axes: Any, order: int) -> None:
    aside = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
    # Text is text: matplotlib would take $ for mathematics.
    axes.text(
        mark.x,
        mark.y,
        mark.text,
        fontsize=_points(mark.size),
        color=_colour(mark.ink),
        horizontalalignment=aside,
        verticalalignment="center",
        rotation=90 if mark.turned else 0,
        rotation_mode="anchor",
        parse_math=False,
        zorder=order,
    )


def _points(pixels: float) -> float:
    return pixels * _POINTS / _PIXELS


def _colour(colour: str) -> Any:
    """A colour as matplotlib has it; plotly writes some as rgb(0, 114, 178)."""
    colour = INKS.get(colour, colour)  # pyright: ignore
    if not colour.startswith("rgb"):
        return colour
    numbers = colour[colour.index("(") + 1 : -1].split(",")
    return tuple(float(part) / 255 for part in numbers[:3])

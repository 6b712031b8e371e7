"""The look that all figures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from dlens.checks import real, refuse

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["COLOURS", "all_of", "faint", "noise_words", "nth_colour", "spelt", "styled"]

T = TypeVar("T")

# Okabe and Ito's palette without black and yellow: told apart by most readers, on light and on dark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


def nth_colour(number: int) -> str:
    """A colour of the palette, which begins anew after its last.

    Examples:
        >>> nth_colour(1), nth_colour(7)
        ('#D55E00', '#D55E00')
    """
    return COLOURS[number % len(COLOURS)]


def faint(colour: str) -> str:
    """The same colour, nearly transparent, for what lies behind a line.

    Examples:
        >>> faint("#0072B2")
        'rgba(0, 114, 178, 0.18)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"


def noise_words(centre: float, last: float | None = None) -> str:
    """What a bin of the noise axis covers, or all from one bin to another, named by their centres.

    Examples:
        >>> noise_words(0.25), noise_words(0.05, 0.95)
        ('20% to 30% masked', '0% to 100% masked')
    """
    for what, value in {"centre": centre, "last": centre if last is None else last}.items():
        if real(value) is None:
            refuse(what, value, "the centre of a bin of noise", f"write {what}=0.25, or another of the axis")
    return f"{abs(centre - 0.05):.0%} to {(centre if last is None else last) + 0.05:.0%} masked"


def all_of(kind: type[T], found: Any, fix: str) -> Sequence[T]:
    """Several results of one kind to draw; one alone may stand without a list.

    Raises:
        ValueError: something else.
    """
    listed = isinstance(found, Iterable) and not isinstance(found, (kind, str, Mapping))
    given = list(found) if listed else [found]
    held = [each for each in given if isinstance(each, kind)]
    if len(held) < len(given):
        came = next(type(each).__name__ for each in given if not isinstance(each, kind))
        raise ValueError(f"the figure got {came}; expected {kind.__name__} objects; {fix}")
    return held


def spelt(text: Any) -> Any:
    """Text that plotly shows as it is: it would take tags in names for markup. What is no text stays.

    Examples:
        >>> spelt("a<b>c"), spelt(3)
        ('a&lt;b&gt;c', 3)
    """
    return escape(text, quote=False) if isinstance(text, str) else text


def styled(figure: go.Figure, x: str, y: str, **layout: Any) -> go.Figure:
    """Room for a narrow page, and no background of its own."""
    import plotly.graph_objects as go

    if not isinstance(figure, go.Figure):
        refuse("figure", figure, "a figure of plotly", "pass what a function of dlens.show.figures returned")
    for what, title in {"x": x, "y": y}.items():
        if not isinstance(title, str):
            refuse(what, title, "the title of an axis", f"write {what}='layer', or ''")
    yaxis = {"title": {"text": spelt(y)}, "automargin": True} | layout.pop("yaxis", {})
    return figure.update_layout(
        xaxis={"title": {"text": spelt(x)}, "automargin": True},
        yaxis=yaxis,
        height=380,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        showlegend=len(figure.data) > 1,  # pyright: ignore
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        template="plotly_white",
        **layout,
    )

"""The look that all figures share."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["COLOURS", "faint", "noise_words", "nth_colour", "spelt", "styled"]

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
    return f"{abs(centre - 0.05):.0%} to {(centre if last is None else last) + 0.05:.0%} masked"


def spelt(text: Any) -> Any:
    """Text that plotly shows as it is: it would take tags in names for markup. What is no text stays.

    Examples:
        >>> spelt("a<b>c"), spelt(3)
        ('a&lt;b&gt;c', 3)
    """
    return escape(text, quote=False) if isinstance(text, str) else text


def styled(figure: go.Figure, x: str, y: str, **layout: Any) -> go.Figure:
    """Room for a narrow page, and no background of its own."""
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

"""Numbers and verdicts as a report writes them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study.bars import Verdict
from dlens.findings.study.claims import Cell

__all__ = ["CLASSES", "claimed_word", "colour_of", "margin", "number", "shown_number", "side"]

# As many as a float32 tells apart.
_MOST_DIGITS = 6
_SIDES: Mapping[Verdict, str] = {"holds": "{bar}", "does not hold": "not {bar}", "undecided": "undecided"}
CLASSES: Mapping[Verdict, str] = {"holds": "holds", "does not hold": "not", "undecided": "undecided"}


def colour_of(cell: Cell) -> str:
    """The class of style of a verdict; one that nobody claimed has no colour."""
    return CLASSES[cell.verdict] if cell.claimed else "unclaimed"


def margin(cell: Cell) -> str:
    """On which side of what number the effect is to lie."""
    return f"{claimed_word(cell)} {cell.bar}" if cell.claimed else f"judged by {cell.bar}"


def claimed_word(cell: Cell) -> str:
    """Whether a claim is made of this kind of model, or follows from others."""
    return "inferred" if cell.inferred else "claimed"


def side(cell: Cell) -> str:
    """A verdict in a table of numbers: where nobody claims anything, on which side of the bar the effect lies."""
    if cell.claimed:
        return cell.verdict
    bar = cell.bar.removesuffix(" (our bar)").replace("<", "below").replace(">", "above")
    return f"no claim; {_SIDES[cell.verdict].format(bar=bar)}"


def number(effect: Estimate, margin: float = nan) -> str:
    """A number with its interval, to as many digits as tell its ends from a margin.

    Examples:
        >>> number(Estimate(0.04, 0.0004, 0.05)), number(Estimate(0.04, 0.0004, 0.05), margin=0)
        ('0.040 [0.000, 0.050]', '0.0400 [0.0004, 0.0500]')
        >>> number(Estimate(0.5, 0.25, 0.75)), number(Estimate(0.5, float("nan"), float("nan")))
        ('0.50 [0.25, 0.75]', '0.50')
    """
    digits = 2 if abs(effect.value) >= 0.1 else 3
    if not isfinite(effect.value):
        return ""
    while digits < _MOST_DIGITS and any(_on(margin, end, digits) for end in (effect.low, effect.high)):
        digits += 1
    value, low, high = (f"{part:.{digits}f}".replace("-", "−") for part in (effect.value, effect.low, effect.high))
    return f"{value} [{low}, {high}]" if isfinite(effect.low) else value


def _on(margin: float, end: float, digits: int) -> bool:
    """Whether an end beside a margin would be shown as lying on it."""
    return end != margin and round(end, digits) == round(margin, digits)


def shown_number(value: float) -> str:
    """A number of a paper, with as many digits as it was reported with, and one sign for minus.

    Examples:
        >>> shown_number(0.918), shown_number(-0.245)
        ('0.918', '−0.245')
    """
    return f"{value:g}".replace("-", "−")

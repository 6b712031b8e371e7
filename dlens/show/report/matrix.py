"""The first screen of a report: a question a row, a model a column, each with its verdict and a small picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from dlens.findings.study.bars import OURS
from dlens.findings.study.claims import BY_LOSS, COMPRESSION_CLAIMS, SHARE, Cell, Row
from dlens.html import rendered
from dlens.show.report.published import ADDRESSES, PUBLISHED, Published
from dlens.show.report.words import claimed_word, colour_of, number, shown_number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["matrix", "row_anchor"]

_WIDTH, _HEIGHT, _MARGIN = 240, 16, 6


@dataclass(frozen=True)
class _Picture:
    """An effect on the axis of its row, in pixels; None for what is not there.

    Args:
        bar: the claimed margin.
        side: where the claimed side of it begins and how wide it is, where one is claimed.
        low, high: the interval.
        value: the effect.
        paper: the paper's own number.
        words: all of it for readers who do not see it.
    """

    bar: float
    side: tuple[float, float] | None
    low: float | None
    high: float | None
    value: float | None
    paper: float | None
    words: str


def matrix(rows: Sequence[Row], reversed_by_accuracy: Collection[str] = ()) -> Markup:
    """What a study states of which model, at a glance.

    Args:
        rows: what it states.
        reversed_by_accuracy: the models of which accuracy says the reverse of the loss on early and late blocks.
    """

    def beside(row: Row, cell: Cell) -> list[str]:
        return _beside(row, cell, cell.model in reversed_by_accuracy)

    return rendered(
        "show/report/matrix.html.j2",
        rows=rows,
        unasked=_unasked(rows),
        anchor=row_anchor,
        address=_references,
        beside=beside,
        beyond=_beyond(rows),
        claimed=_claimed,
        colour=colour_of,
        number=number,
        ours=_ours,
        picture=_pictures,
        unit=_unit,
        width=_WIDTH,
        height=_HEIGHT,
    )


def row_anchor(number: int) -> str:
    """Where the details of a row stand on the page."""
    return f"question-{number + 1}"


def _unasked(rows: Sequence[Row]) -> list[str]:
    """Questions that this study was not asked, though dlens could."""
    asked = {row.title for row in rows}
    return [claim.question for claim in COMPRESSION_CLAIMS if claim.title not in asked]


def _claimed(cell: Cell) -> list[str]:
    """What is claimed, where the answer does not say it."""
    if not cell.claimed:
        return ["no claim of this kind"]
    return [f"{claimed_word(cell)}: {cell.says.partition(',')[0]}"] if cell.verdict == "undecided" else []


def _beside(row: Row, cell: Cell, reverse: bool) -> list[str]:
    """Which channel or blocks are meant, by what it is so, and the paper's own number."""
    paper = _published(row, cell)
    by = "by loss; accuracy says the reverse" if reverse and row.title == BY_LOSS else ""
    own = f"paper: {shown_number(paper.value)} ({paper.words})" if paper else ""
    return list(filter(None, ["; ".join(filter(None, [cell.note, by])), own]))


def _ours(cell: Cell) -> bool:
    """Whether its bar is dlens's."""
    return cell.bar.endswith(OURS)


def _beyond(rows: Sequence[Row]) -> bool:
    """Whether an interval of a share ends above all that there was."""
    return any(cell.unit == SHARE and cell.effect.high > 1 for row in rows for cell in row.cells)


def _unit(row: Row) -> str:
    """In what the effects of a row are counted; several where that differs by kind of model."""
    return " or ".join(dict.fromkeys(cell.unit for cell in row.cells))


def _references(row: Row) -> list[tuple[str, str]]:
    """The papers of a row, with their addresses."""
    return [(paper.removeprefix("arXiv "), ADDRESSES[paper]) for paper in row.source.split(", ")]


def _published(row: Row, cell: Cell) -> Published | None:
    return PUBLISHED.get(row.title, {}).get(cell.kind) if cell.claimed else None


def _pictures(row: Row) -> list[_Picture]:
    """The effects of a row, on one axis."""
    known = [value for cell in row.cells for value in _numbers(row, cell) if isfinite(value)]
    low, high = min(known), max(known)
    margin = 0.08 * (high - low) or 0.5
    return [_picture(row, cell, low - margin, high + margin) for cell in row.cells]


def _numbers(row: Row, cell: Cell) -> list[float]:
    paper = _published(row, cell)
    effect = cell.effect
    return [effect.value, effect.low, effect.high, cell.margin, *([paper.value] if paper else [])]


def _picture(row: Row, cell: Cell, low: float, high: float) -> _Picture:
    def at(value: float) -> Any:
        share = (value - low) / (high - low)
        return round(_MARGIN + share * (_WIDTH - 2 * _MARGIN), 1) if isfinite(value) else None

    bar, effect, paper = at(cell.margin), cell.effect, _published(row, cell)
    side = ((0.0, bar) if "<" in cell.bar else (bar, _WIDTH - bar)) if cell.claimed else None
    words = f"{number(effect, cell.margin) or 'not measurable'}; bar {cell.bar}"
    if paper:
        words += f"; the paper's {shown_number(paper.value)}"
    return _Picture(
        bar, side, at(effect.low), at(effect.high), at(effect.value), at(paper.value) if paper else None, words
    )

"""Numbers and verdicts in words."""

from __future__ import annotations

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study.claims import Cell
from dlens.show.report.words import colour_of, margin, number, shown_number


def cell(claimed: bool, verdict: str = "holds") -> Cell:
    return Cell("ar", "ar", "yes", "> 0.9", Estimate(0.95, 0.92, 0.99), verdict, claimed, margin=0.9)  # pyright: ignore


def test_a_verdict_has_a_colour_where_it_is_about_a_claim() -> None:
    assert [colour_of(cell(True, verdict)) for verdict in ("holds", "does not hold", "undecided")] == [
        "holds",
        "not",
        "undecided",
    ]
    assert colour_of(cell(False)) == "unclaimed"


def test_a_margin_is_claimed_or_judged_by() -> None:
    assert (margin(cell(True)), margin(cell(False))) == ("claimed > 0.9", "judged by > 0.9")


def test_there_is_one_minus() -> None:
    assert number(Estimate(-0.5, -0.75, -0.25)) == "−0.50 [−0.75, −0.25]" and shown_number(-0.084) == "−0.084"

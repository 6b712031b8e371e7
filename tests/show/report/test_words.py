"""Numbers and verdicts in words."""

from __future__ import annotations

import pytest

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study.claims import Cell
from dlens.show.report.words import colour_of, margin, number, shown_number, side


def cell(claimed: bool, verdict: str = "holds", bar: str = "> 0.9", inferred: str = "") -> Cell:
    effect = Estimate(0.95, 0.92, 0.99)
    return Cell("ar", "ar", "yes", bar, effect, verdict, claimed, margin=0.9, inferred=inferred)  # pyright: ignore


def test_a_verdict_has_a_colour_where_it_is_about_a_claim() -> None:
    assert [colour_of(cell(True, verdict)) for verdict in ("holds", "does not hold", "undecided")] == [
        "holds",
        "not",
        "undecided",
    ]
    assert colour_of(cell(False)) == "unclaimed"


def test_a_margin_is_claimed_or_judged_by() -> None:
    assert (margin(cell(True)), margin(cell(False))) == ("claimed > 0.9", "judged by > 0.9")
    assert margin(cell(True, inferred="others")) == "inferred > 0.9"


@pytest.mark.parametrize(
    ("verdict", "bar", "words"),
    [
        ("holds", "> 0.25 (our bar)", "above 0.25"),
        ("does not hold", "> 0.25 (our bar)", "not above 0.25"),
        ("does not hold", "< 0.5", "not below 0.5"),
        ("undecided", "< 0.5", "undecided"),
    ],
)
def test_where_nobody_claims_anything_no_claim_fails(verdict: str, bar: str, words: str) -> None:
    assert side(cell(False, verdict, bar)) == f"no claim; {words}"
    assert side(cell(True, verdict, bar)) == verdict


def test_there_is_one_minus() -> None:
    assert number(Estimate(-0.5, -0.75, -0.25)) == "−0.50 [−0.75, −0.25]" and shown_number(-0.084) == "−0.084"

"""Verdicts follow from intervals, and say what was found, or what it takes."""

from __future__ import annotations

from math import inf, nan

import pytest

from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import ratio_interval
from dlens.findings.study.bars import Bar, limit_of, verdict_of

FEWEST_LOST = 6
_KEPT, _LOST = "45 solved ones that all stay solved", f"{FEWEST_LOST} solved ones that are all lost"


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.6, 0.7, "holds", "does not hold"),
        (0.2, 0.4, "does not hold", "holds"),
        (0.4, 0.6, "undecided", "undecided"),
        (0.5, 0.7, "undecided", "undecided"),
        (nan, nan, "undecided", "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, above: str, below: str) -> None:
    effect = Estimate(0.5, low, high)
    assert verdict_of(effect, Bar("", ">", 0.5)) == above
    assert verdict_of(effect, Bar("", "<", 0.5)) == below


@pytest.mark.parametrize(
    ("extremes", "sign", "words"),
    [
        ((0.4, 0.7), ">", f"confirmed {_KEPT}"),
        ((0.4, 0.7), "<", f"refuted {_KEPT}"),
        ((0.95, 1.2), "<", f"confirmed {_LOST}"),
        ((0.95, 1.2), ">", f"refuted {_LOST}"),
        ((0.95, 0.7), ">", f"decided {_KEPT} or {_LOST}"),
        ((0.4, 1.2), ">", ""),
        ((-inf, inf), "<", ""),
    ],
)
def test_a_bar_that_so_few_problems_cannot_reach_is_said(extremes: tuple[float, float], sign: str, words: str) -> None:
    found = limit_of(Estimate(0.8, 0.5, 1.1, n=12, extremes=extremes), Bar("", sign, 0.9), 11)  # pyright: ignore
    what, _, takes = words.partition(" ")
    of = "of which 11 are solved without the change, whatever the answers with it"
    assert found == (f"cannot be {what} with 12 problems {of}: it takes {takes}" if words else "")


def test_as_many_as_it_takes_are_the_fewest_that_decide() -> None:
    """Counted one by one."""
    high = [ratio_interval([True] * n, [False] * n)[1] for n in range(1, 8)]
    assert [n for n, end in enumerate(high, 1) if end < 0.9][0] == FEWEST_LOST
    low = [ratio_interval([True] * n, [True] * n)[0] for n in range(1, 50)]
    assert [n for n, end in enumerate(low, 1) if end > 0.9][0] == 45
    # No answers show that more is kept than there was.
    never = Bar("", ">", 1.0)
    limit = limit_of(Estimate(1.0, 0.7, 1.4, n=12, extremes=(0.5, 0.7)), never, 1)
    assert limit.endswith("of which 1 is solved without the change, whatever the answers with it")


@pytest.mark.parametrize(
    ("bar", "holds", "fails"),
    [
        (Bar("no, {percent}", "<", 0.5), "no, as claimed", "yes, against the claim"),
        (
            Bar("less than others, by far", "<", 0),
            "less than others, as claimed",
            "more than others, against the claim",
        ),
        (Bar("no, it", "<", 0.5, inferred="others"), "no, as inferred", "yes, against what is inferred"),
        (Bar("no, it", "<", 0.5, otherwise="over {percent}"), "no, as claimed", "over 50 %, against the claim"),
        (Bar("not kept, it", "<", 0.5), "not kept, as claimed", "kept, against the claim"),
        (Bar("no claim", "<", 0.5, claimed=False), "yes", "no"),
        (Bar("no claim", "<", 0.5, claimed=False, found="breaks"), "breaks", "does not break"),
    ],
)
def test_a_verdict_is_said_as_an_answer(bar: Bar, holds: str, fails: str) -> None:
    assert [bar.answer(verdict) for verdict in ("holds", "does not hold", "undecided")] == [holds, fails, "undecided"]


@pytest.mark.parametrize(
    ("bar", "words"),
    [
        (
            Bar("{percent}", "<", 0.5, reported="A: 34.9 % of X, 64.7 % of Y-1"),
            "64.7 % of Y-1 is not below this bar",
        ),
        (
            Bar("{percent}", ">", 0.9, reported="A: 80 % of X, 88 % of Y, 91 % of Z"),
            "80 % of X and 88 % of Y are not above",
        ),
        (Bar("{percent}", "<", 0.5, reported="A −83 % on X, read as relative: 17 % is kept"), ""),
        (Bar("{margin}", "<", 0.5, reported="A: 64.7 % of X"), ""),
        (Bar("{percent}", "<", 0.5), ""),
    ],
)
def test_shares_of_the_papers_beyond_the_bar_are_named(bar: Bar, words: str) -> None:
    found = bar.beyond()
    assert (words in found and found.startswith("the papers' own ")) if words else found == ""

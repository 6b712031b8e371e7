"""Numbers with their intervals, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any

import numpy as np
import pytest

from dlens.findings.scores.estimate import Estimate, kept_less, kept_share, mean_curve, mean_of
from dlens.findings.scores.intervals import mean_interval, ratio_interval
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked


def test_a_mean_says_of_how_many_and_of_what() -> None:
    found = mean_of(np.array([1.0, 3.0]), unit="nats a token")
    # Two samples say little: Student's t with one degree of freedom.
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - 12.706, 2 + 12.706), abs=1e-3)
    assert (found.n, found.unit) == (2, "nats a token")
    alone = mean_of(np.array([1.0]))
    assert alone.value == 1 and isnan(alone.low) and isnan(alone.high)


def test_a_curve_is_the_mean_at_every_place() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    curve = mean_curve(values)
    assert (len(curve), curve.n) == (4, 6)
    expected = mean_interval(values)
    assert [curve.value.tolist(), curve.low.tolist(), curve.high.tolist()] == [part.tolist() for part in expected]
    assert curve.parts(1) == tuple(part[1:].tolist() for part in expected)


def test_plain_data_holds_what_is_beside_and_not_what_is_counted() -> None:
    masked = Estimate(0.25, 0.0, 0.5, "why", n=3, unit="share")
    found = Estimate(1.0, 0.5, 1.5, beside=(("masked", masked),)).to_json()
    inner = {"value": 0.25, "low": 0.0, "high": 0.5, "why": "why", "beside": (), "shown": ()}
    assert found == {"value": 1.0, "low": 0.5, "high": 1.5, "why": "", "beside": (("masked", inner),), "shown": ()}


def test_what_is_kept_of_nothing_has_no_interval_and_of_little_a_wide_one() -> None:
    nothing = kept_share([False] * 4, [True] * 4)
    assert isnan(nothing.value) and (nothing.why, nothing.n) == ("not measurable: baseline solves 0 of 4", 4)
    little = kept_share([True] + [False] * 9, [True] + [False] * 9)
    assert (little.value, little.why) == (1, "baseline solves 1 of 10") and little.low < 0.1 and little.high > 5


def test_where_no_answer_differs_the_interval_says_how_few_there_are() -> None:
    everything = kept_share([True] * 8 + [False] * 2, [True] * 8 + [False] * 2)
    nothing = kept_share([True] * 8 + [False] * 2, [False] * 10)
    # Wilson's interval with continuity correction of 8 of 8, which ends at 0.598.
    assert (everything.value, everything.low) == (1, pytest.approx(0.5977, abs=1e-4)) and everything.high > 1
    assert (nothing.value, nothing.low) == (0, 0) and 0.3 < nothing.high < 0.7


def test_a_share_has_the_interval_of_pairs() -> None:
    before, after = [True] * 30 + [False] * 30, [True] * 20 + [False] * 40
    effect = kept_share(before, after)
    assert effect.value == pytest.approx(2 / 3)
    assert (effect.low, effect.high) == ratio_interval(before, after)


def test_the_extremes_are_those_of_the_best_and_the_worst_answers() -> None:
    solved = [True] * 12
    effect = kept_share(solved, [True, False] * 6)
    assert effect.extremes == (kept_share(solved, [False] * 12).high, kept_share(solved, solved).low)
    # So few cannot show that more than 0.9 is kept: 45 can.
    assert effect.extremes[1] < 0.9
    assert [kept_share([True] * n, [True] * n).low > 0.9 for n in (44, 45)] == [False, True]


def test_what_is_kept_is_compared_with_the_mean_of_others() -> None:
    solved, half, quarter = [True] * 16, [True, False] * 8, [True, False, False, False] * 4
    effect = kept_less((solved, half), [(solved, solved), (solved, quarter)])
    assert (effect.value, effect.n) == (0.5 - (1 + 0.25) / 2, 16) and effect.low < effect.value < effect.high
    assert isnan(kept_less((solved, half), [([False] * 16, half)]).value)


def test_shares_of_the_same_problems_are_compared_in_pairs() -> None:
    solved, half = [True] * 32, [True, False] * 16
    alike, unlike = (
        kept_less((solved, half), [(solved, half)]),
        kept_less((solved, half), [(solved, half[1:] + [True])]),
    )
    assert alike.value == unlike.value == 0 and (alike.low, alike.high) == pytest.approx((0, 0), abs=0.1)
    assert unlike.low < -0.3 and unlike.high > 0.3


@pytest.mark.parametrize("shares", [(0.9, 0.9, 0.6, 0.6), (1.0, 0.95, 0.8, 0.5), (0.7, 0.9, 0.9, 0.95)])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_a_difference_of_kept_shares_is_covered(shares: tuple[float, ...], shared: float) -> None:
    """Of two models, with what each solves before and keeps; how hard a problem is, is shared in part."""
    rng, hits = np.random.default_rng(0), 0
    solved, kept = np.array(shares).reshape(2, 2, 1)
    first, second = (_kept(*own, shared) for own in zip(shares[:2], shares[2:], strict=True))
    for _ in range(200):
        drawn = np.where(rng.random((4, 36)) < shared, rng.random(36), rng.random((4, 36)))
        before = drawn[:2] < solved
        after = (before & (drawn[2:] < kept)).tolist()
        own, other = zip(before.tolist(), after, strict=True)
        effect = kept_less(own, [other])
        hits += effect.low <= first - second <= effect.high
    assert hits / 200 >= 0.93


def _kept(solved: float, kept: float, shared: float) -> float:
    """What is kept of what is solved: two draws are one and the same with probability shared squared."""
    together = shared**2
    return together * min(solved, kept) / solved + (1 - together) * kept


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_objects_are_refused(wrong: Any) -> None:
    right = [True, False]
    calls: dict[str, Callable[[], Any]] = {
        "values": lambda: mean_of(wrong),
        "values ": lambda: mean_curve(wrong),
        "unit": lambda: mean_of(np.ones(2), None if wrong == "x" else wrong),
        "before": lambda: kept_share(wrong, right),
        "after": lambda: kept_share(right, wrong),
        "own": lambda: kept_less(wrong, [(right, right)]),
        "others": lambda: kept_less((right, right), wrong),
    }
    for what, call in calls.items():
        with unchecked(), pytest.raises(ValueError) as caught:
            call()
        assert_three_parts(str(caught.value), f"{what.strip()}=")


def test_answers_to_other_problems_and_samples_of_another_shape_are_refused() -> None:
    for call in (
        lambda: kept_share([True], [True, False]),
        lambda: kept_less(([True], [True]), []),
        lambda: kept_less(([True], [True]), [([True], [True, False])]),
        lambda: mean_of(np.zeros((2, 3))),
        lambda: mean_curve(np.zeros(3)),
        lambda: mean_of(np.zeros(0)),
    ):
        with unchecked(), pytest.raises(ValueError, match=";.* expected|; expected"):
            call()

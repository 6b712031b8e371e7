"""Numbers with their intervals, worked out by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from dlens.findings.scores.estimate import Estimate, kept_share, mean_curve, mean_of
from dlens.findings.scores.intervals import mean_interval


def test_a_mean_says_of_how_many_and_of_what() -> None:
    found = mean_of(np.array([1.0, 3.0]), seed=1, unit="nats a token")
    assert (found.value, found.low, found.high) == (2, 1, 3)
    assert (found.n, found.unit) == (2, "nats a token")
    alone = mean_of(np.array([1.0]))
    assert alone.value == 1 and isnan(alone.low) and isnan(alone.high)


def test_a_curve_is_the_mean_at_every_place() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    curve = mean_curve(values, seed=3)
    assert (len(curve), curve.n) == (4, 6)
    expected = mean_interval(values, seed=3)
    assert [curve.value.tolist(), curve.low.tolist(), curve.high.tolist()] == [part.tolist() for part in expected]
    assert curve.parts(1) == tuple(part[1:].tolist() for part in expected)


def test_plain_data_holds_what_is_beside_and_not_what_is_counted() -> None:
    masked = Estimate(0.25, 0.0, 0.5, "why", n=3, unit="share")
    found = Estimate(1.0, 0.5, 1.5, beside=(("masked", masked),)).to_json()
    inner = {"value": 0.25, "low": 0.0, "high": 0.5, "why": "why", "beside": (), "shown": ()}
    assert found == {"value": 1.0, "low": 0.5, "high": 1.5, "why": "", "beside": (("masked", inner),), "shown": ()}


def test_what_is_kept_of_nothing_or_little_has_no_interval() -> None:
    nothing = kept_share([False] * 4, [True] * 4)
    assert isnan(nothing.value) and (nothing.why, nothing.n) == ("not measurable: baseline solves 0 of 4", 4)
    little = kept_share([True] + [False] * 9, [True] + [False] * 9)
    assert little.value == 1 and isnan(little.low)
    assert little.why == "baseline solves 1 of 10, too few for an interval"


def test_an_interval_without_width_is_replaced_by_the_exact_one() -> None:
    # All of 8 solved problems kept: the exact lower end p has p ** 8 = 0.025.
    everything = kept_share([True] * 8 + [False] * 2, [True] * 8 + [False] * 2)
    assert (everything.value, everything.high) == (1, 1)
    assert everything.low == pytest.approx(0.025 ** (1 / 8))
    nothing = kept_share([True] * 8 + [False] * 2, [False] * 10)
    assert (nothing.value, nothing.low) == (0, 0)
    assert nothing.high == pytest.approx(1 - 0.025 ** (1 / 8))


def test_a_share_has_the_interval_of_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    before = [True] * 30 + [False] * 30
    after = [True] * 20 + [False] * 40
    effect = kept_share(before, after)
    picks = rng.integers(60, size=(20_000, 60))
    shares = np.array(after)[picks].sum(1) / np.array(before)[picks].sum(1)
    assert effect.value == pytest.approx(2 / 3)
    assert (effect.low, effect.high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.02)

from __future__ import annotations

from math import comb, isnan

import numpy as np
import pytest

from dlens.findings.scores.intervals import mcnemar, mean_interval, ratio_interval


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (5, 1), (7, 7), (9, 2), (0, 12)])
def test_mcnemar_is_the_exact_binomial_sum(lost: int, won: int) -> None:
    before = [True] * lost + [False] * won + [True] * 3 + [False] * 4
    after = [False] * lost + [True] * won + [True] * 3 + [False] * 4
    n = lost + won
    tail = sum(comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    assert mcnemar(before, after) == pytest.approx(min(1.0, 2 * tail))


def test_nothing_changed_is_no_evidence() -> None:
    assert mcnemar([True, False], [True, False]) == 1


def test_the_bootstrap_keeps_pairs_together() -> None:
    before = [True, False] * 20
    # Unpaired, this would vary with both series; in pairs every resample has a ratio of 1.
    assert ratio_interval(before, before) == (1, 1)
    low, high = ratio_interval(before, [*before[:-8], *[False] * 8])
    assert low < 16 / 20 < high < 1.01


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(100):
        before = rng.random(80) < 0.8
        after = before & (rng.random(80) < 0.7)
        low, high = ratio_interval(before.tolist(), after.tolist(), 499, seed)
        hits += low <= 0.7 <= high
    # 95 of 100, with a standard deviation of 2.2.
    assert 86 <= hits <= 100


@pytest.mark.parametrize(
    ("before", "after"),
    [([False] * 8, [True] * 8), ([True], [True]), ([True] + [False] * 9, [True] + [False] * 9)],
)
def test_without_a_baseline_there_is_no_interval(before: list[bool], after: list[bool]) -> None:
    assert all(map(isnan, ratio_interval(before, after)))


def test_the_seed_decides_the_resamples() -> None:
    before, after = [True] * 30, [True, False, True] * 10
    assert ratio_interval(before, after, 99, 1) == ratio_interval(before, after, 99, 1)
    assert len({ratio_interval(before, after, 99, seed) for seed in range(5)}) > 1


def test_intervals_of_means_are_those_of_normal_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, (200, 2, 3))
    mean, low, high = mean_interval(values, 2000)
    error = values.std(0, ddof=1) / np.sqrt(200)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(low, mean - 1.96 * error, atol=0.06)
    np.testing.assert_allclose(high, mean + 1.96 * error, atol=0.06)


def test_nan_is_left_out_of_a_mean() -> None:
    values = np.full((12, 3), np.nan)
    values[:, 1] = 2
    values[1:, 2] = 3
    mean, low, high = mean_interval(values)
    np.testing.assert_array_equal(mean, [np.nan, 2, 3])
    np.testing.assert_array_equal(low[:2], [np.nan, 2])
    assert low[2] == high[2] == 3


def test_one_sample_has_no_interval() -> None:
    mean, low, high = mean_interval(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1, 2] and np.isnan([low, high]).all()

"""Intervals cover as often as they say, whatever is drawn; known cases are worked out another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb, isnan
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, t

from dlens.findings.scores.intervals import (
    contrast_interval,
    jackknife_interval,
    mcnemar,
    mean_interval,
    ratio_ends,
    ratio_interval,
    share_interval,
)
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

# Simulated coverage is known to 0.006 at 1500 draws.
COVERED = 0.93


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (5, 1), (7, 7), (9, 2), (0, 12)])
def test_mcnemar_is_the_exact_binomial_sum(lost: int, won: int) -> None:
    before = [True] * lost + [False] * won + [True] * 3 + [False] * 4
    after = [False] * lost + [True] * won + [True] * 3 + [False] * 4
    n = lost + won
    tail = sum(comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    assert mcnemar(before, after) == pytest.approx(min(1.0, 2 * tail))


def test_nothing_changed_is_no_evidence() -> None:
    assert mcnemar([True, False], [True, False]) == 1


@pytest.mark.parametrize("n", [12, 24, 64, 256])
def test_a_share_is_covered(n: int) -> None:
    """By Wilson's interval on average over shares; at single ones near 1 it covers less, as its docstring says."""
    ends = np.array([share_interval([True] * k + [False] * (n - k)) for k in range(n + 1)])
    shares = np.linspace(0.005, 0.995, 199)
    inside = (ends[:, 0] <= shares[:, None]) & (shares[:, None] <= ends[:, 1])
    covered = (binom.pmf(np.arange(n + 1), n, shares[:, None]) * inside).sum(1)
    assert covered.mean() >= 0.95 and covered.min() >= 0.83


def paired(n: int) -> Iterator[tuple[float, np.ndarray]]:
    """Ratios, and counts [draw, both / lost / won] of pairs that agree as much as they can or by chance alone."""
    for baseline in (0.5, 0.7, 0.9, 0.95, 1.0):
        for retained in (0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 1.0):
            after = baseline * retained
            for both in (after, after * baseline):
                shares = np.array([both, baseline - both, after - both, 1 - baseline - after + both]).clip(0)
                yield retained, np.random.default_rng(0).multinomial(n, shares / shares.sum(), 1500)[:, :3]


@pytest.mark.parametrize("n", [12, 16, 36, 64, 256])
def test_a_ratio_of_pairs_is_covered(n: int) -> None:
    ratios, drawn = zip(*paired(n), strict=True)
    counts, which = np.unique(np.concatenate(drawn), axis=0, return_inverse=True)
    low, high = (end[which].reshape(len(ratios), -1) for end in ratio_ends(*counts.T.astype(float)))
    true = np.array(ratios)[:, None]
    covered = np.nanmean(np.where(np.isnan(low), np.nan, (low <= true) & (true <= high)), axis=1)
    assert covered.min() >= COVERED


@pytest.mark.parametrize(("both", "lost"), [(0, 8), (3, 5), (12, 0), (36, 0), (57, 7)])
def test_a_ratio_of_which_all_is_solved_before_begins_as_a_share(both: int, lost: int) -> None:
    low, _ = ratio_interval([True] * (both + lost), [True] * both + [False] * lost)
    expected = binomtest(both, both + lost).proportion_ci(0.95, "wilsoncc")
    assert low == pytest.approx(expected.low, abs=1e-9)


@pytest.mark.parametrize(("both", "lost", "won"), [(20, 8, 3), (5, 2, 9), (40, 1, 0)])
@pytest.mark.parametrize("end", [0, 1])
def test_an_end_is_where_the_score_test_refuses(both: int, lost: int, won: int, end: int) -> None:
    """The likeliest shares under a ratio by search, the variance of after - ratio x before from them."""
    counts = np.array([both, lost, won])
    ratio = ratio_ends(*counts[:, None].astype(float))[end].item()

    def shares(only: float) -> np.ndarray:
        return np.array([(1 - (1 + ratio) * only) / ratio, only, (only + ratio - 1) / ratio])

    def unlikely(only: float) -> float:
        return -float(counts @ np.log(shares(only).clip(1e-300)))

    span = (max(0.0, 1 - ratio), 1 / (1 + ratio))
    found = shares(minimize_scalar(unlikely, bounds=span, method="bounded", options={"xatol": 1e-12}).x)
    variance = counts.sum() * (found @ np.array([1 - ratio, -ratio, 1]) ** 2)
    excess = abs(both + won - ratio * (both + lost)) - 0.5
    assert excess / np.sqrt(variance) == pytest.approx(1.959964, abs=1e-3)


def test_pairs_that_agree_say_more() -> None:
    before = [True, False] * 20
    same = ratio_interval(before, before)
    other = ratio_interval(before, before[1:] + before[:1])
    assert same[0] < 1 < same[1] and same[1] - same[0] < 0.5 * (other[1] - other[0])


def test_without_a_baseline_there_is_no_interval() -> None:
    assert all(map(isnan, ratio_interval([False] * 8, [True] * 8)))
    low, high = ratio_interval([True], [True])
    assert low < 0.1 and high > 5, "one answer says next to nothing"


def test_nothing_kept_has_an_interval() -> None:
    low, high = ratio_interval([True] * 8, [False] * 8)
    assert low == 0 and 0.3 < high < 0.7


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
DRAWN: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, size: rng.normal(5, 2, size), 5),
    "uniform": (lambda rng, size: rng.random(size), 0.5),
    "exponential": (lambda rng, size: rng.exponential(1, size), 1),
    "near one": (lambda rng, size: rng.beta(5, 1, size), 5 / 6),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("n", [8, 16, 24, 64])
def test_a_mean_is_covered(name: str, n: int) -> None:
    draw, true = DRAWN[name]
    _, low, high = mean_interval(draw(np.random.default_rng(0), (n, 10_000)))
    assert 0.93 <= ((low <= true) & (true <= high)).mean() <= 0.98


def test_the_interval_of_a_mean_without_skewness_is_student_s() -> None:
    values = np.array([[-3.0, 1.0], [-1.0, 2.0], [1.0, 3.0], [3.0, 4.0]])
    mean, low, high = mean_interval(values)
    reach = t.ppf(0.975, 3) * values.std(0, ddof=1) / 2
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(low, mean - reach)
    np.testing.assert_allclose(high, mean + reach)


def test_the_interval_of_a_skewed_mean_reaches_further_on_its_long_side() -> None:
    values = np.array([0.0] * 9 + [10.0])
    mean, low, high = mean_interval(values)
    assert high - mean > 2 * (mean - low) > 0
    upside_down = mean_interval(-values)
    np.testing.assert_allclose(upside_down, (-mean, -high, -low))


def test_intervals_of_means_are_those_of_normal_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, (200, 2, 3))
    mean, low, high = mean_interval(values)
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


def test_leaving_one_out_of_a_mean_is_student_s() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    reach = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert jackknife_interval([values], np.mean) == pytest.approx((4 - reach, 4 + reach))
    assert all(map(isnan, jackknife_interval([values, values[:1]], lambda a, b: a.mean() - b.mean())))
    assert jackknife_interval([np.ones(3)], np.mean) == (1, 1)


@pytest.mark.parametrize("n", [4, 12])
def test_a_place_between_two_samples_is_covered(n: int) -> None:
    """The mean of one sample as a share of the way between the means of two others, which share their noise."""
    rng = np.random.default_rng(0)

    def place(own: np.ndarray, ends: np.ndarray) -> float:
        start, line = ends[:, 0].mean(), ends[:, 1].mean() - ends[:, 0].mean()
        return float((own.mean() - start) / line)

    hits = 0
    for _ in range(400):
        own = 0.75 + 0.2 * rng.exponential(1, n) - 0.2
        ends = np.stack([np.zeros(n), np.ones(n)], 1) + 0.2 * rng.normal(size=(n, 1)) + 0.05 * rng.normal(size=(n, 2))
        low, high = jackknife_interval([own, ends], place)
        hits += low <= 0.75 <= high
    # The standard deviation of a share of 0.95 is 0.011 here.
    assert hits / 400 >= COVERED - 0.01


def test_a_difference_of_normal_means_has_the_variance_of_both() -> None:
    values, reach = np.array([5.0, 2.0]), np.array([3.0, 4.0])
    ends = np.stack([values - reach, values + reach], 1)
    apart = contrast_interval(values, ends, np.array([1.0, -1.0]), np.eye(2))
    assert apart == pytest.approx((-2, 8))
    together = np.array([[1, 0.5], [0.5, 1]])
    assert contrast_interval(values, ends, np.array([1.0, -1.0]), together)[1] == pytest.approx(3 + (25 - 12) ** 0.5)


def test_from_a_value_to_an_end_only_the_nearer_ends_of_the_parts_count() -> None:
    values, ends = np.array([1.0, 0.5]), np.array([[0.7, 1.4], [0.2, 0.9]])
    low, high = contrast_interval(values, ends, np.array([1.0, -1.0]), np.eye(2))
    assert (low, high) == pytest.approx((0.5 - 0.5, 0.5 + 0.5))


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_objects_are_refused(wrong: Any) -> None:
    one, ends = np.ones(1), np.ones((1, 2))
    calls: dict[str, Callable[[], Any]] = {
        "both": lambda: ratio_ends(wrong, one, one),
        "lost": lambda: ratio_ends(one, wrong, one),
        "won": lambda: ratio_ends(one, one, wrong),
        "samples": lambda: jackknife_interval(wrong, np.mean),
        "samples ": lambda: jackknife_interval([wrong], np.mean),
        "statistic": lambda: jackknife_interval([np.ones(3)], wrong),
        "values": lambda: contrast_interval(wrong, ends, one, np.eye(1)),
        "ends": lambda: contrast_interval(one, wrong, one, np.eye(1)),
        "weights": lambda: contrast_interval(one, ends, wrong, np.eye(1)),
        "correlation": lambda: contrast_interval(one, ends, one, wrong),
    }
    for what, call in calls.items():
        with unchecked(), pytest.raises(ValueError) as caught:
            call()
        assert_three_parts(str(caught.value), f"{what.strip()}=")


def test_arrays_that_do_not_go_together_are_refused() -> None:
    one, two = np.ones(1), np.ones(2)
    for call in (
        lambda: ratio_ends(two, one, two),
        lambda: ratio_ends(one, one, -one),
        lambda: ratio_ends(one[0], one, one),
        lambda: jackknife_interval([], np.mean),
        lambda: jackknife_interval(np.ones(3), np.mean),
        lambda: contrast_interval(two, np.ones((2, 3)), two, np.eye(2)),
        lambda: contrast_interval(two, np.ones((2, 2)), two, np.eye(3)),
        lambda: contrast_interval(two, np.ones((2, 2)), one, np.eye(2)),
    ):
        with unchecked(), pytest.raises(ValueError, match="; expected .*; "):
            call()

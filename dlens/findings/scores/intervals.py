"""How sure a number is: bootstrap intervals and a paired test, with `scipy.stats`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["LEVEL", "mcnemar", "mean_interval", "ratio_interval", "share_interval"]

LEVEL = 0.95
# Values that a batch of resamples may hold at once.
_HELD = 2**24


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Two-sided p-value that two paired series of answers are right equally often.

    McNemar's exact test: of the answers that are right in one series only, each side has half, by a
    binomial test. 1 where no answer differs.

    Examples:
        >>> mcnemar([True] * 6, [False] * 6)
        0.03125
    """
    from scipy.stats import binomtest

    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    won = sum(b and not a for a, b in zip(before, after, strict=True))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def share_interval(right: Sequence[bool]) -> tuple[float, float]:
    """95 % interval of the share of answers that are right, by Wilson's score.

    Examples:
        >>> low, high = share_interval([True] * 9 + [False])
        >>> round(low, 2), round(high, 2)
        (0.6, 0.98)
    """
    from scipy.stats import binomtest

    low, high = binomtest(sum(right), len(right)).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def ratio_interval(
    before: Sequence[bool], after: Sequence[bool], resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of sum(after) / sum(before): percentile bootstrap over pairs.

    A resample in which nothing is right before has no ratio and is left out. The interval is NaN
    where more resamples than lie outside of it are left out, or where there is one pair.
    """
    ratios = _resampled([np.asarray(series, float) for series in (before, after)], _ratio, resamples, seed)
    if ratios is None or np.isnan(ratios).mean() > 1 - LEVEL:
        return nan, nan
    low, high = np.nanquantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(
    values: Float[np.ndarray, "sample ..."], resamples: int = 999, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over the first axis with 95 % intervals: percentile bootstrap, whole samples at a time.

    NaN is left out of a mean. There is no interval, so NaN, where there is one sample, or where
    some resample has nothing to average.

    Returns:
        The means and the ends of their intervals.
    """
    mean = _mean(values, axis=0)
    means = _resampled([values], _mean, resamples, seed)
    if means is None:
        return mean, np.full(mean.shape, nan), np.full(mean.shape, nan)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return mean, low, high


def _mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    n = np.isfinite(values).sum(axis)
    return np.divide(np.nansum(values, axis), n, out=np.full(n.shape, nan), where=n > 0)


def _ratio(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
    total = before.sum(axis)
    return np.divide(after.sum(axis), total, out=np.full(total.shape, nan), where=total > 0)


def _resampled(samples: list[np.ndarray], statistic: Any, resamples: int, seed: int) -> np.ndarray | None:
    """A statistic of resamples of the first axis, along a last axis; None for fewer than two samples."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    if len(samples[0]) < 2:
        return None
    with warnings.catch_warnings():
        # Said of every NaN among the resamples; what becomes of these is up to the caller.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            batch=max(1, _HELD // samples[0].size),
            vectorized=True,
            paired=True,
            axis=0,
            method="percentile",
            confidence_level=LEVEL,
            rng=np.random.default_rng(seed),
        )
    return found.bootstrap_distribution

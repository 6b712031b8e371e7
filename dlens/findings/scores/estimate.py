"""A number with its interval, and a row of them: what findings hand to figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any, final

import numpy as np
from jaxtyping import Float

from dlens.findings.scores.intervals import LEVEL, mean_interval, ratio_interval

__all__ = ["Curve", "Estimate", "kept_share", "mean_curve", "mean_of"]


@final
@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over texts or problems.

    Args:
        value, low, high: the number and its interval; NaN where there is none.
        why: why there is none, or what else a reader must know.
        beside: further numbers of the same kind, by what they are.
        shown: those without which the number would mislead, by words for a reader.
        n: how many texts or problems it is over.
        unit: what it counts, such as "nats a token"; empty for a plain number.

    Examples:
        >>> Estimate(0.5, 0.25, 0.75, n=8).to_json()
        {'value': 0.5, 'low': 0.25, 'high': 0.75, 'why': '', 'beside': (), 'shown': ()}
    """

    value: float
    low: float
    high: float
    why: str = ""
    beside: tuple[tuple[str, Estimate], ...] = ()
    shown: tuple[tuple[str, Estimate], ...] = ()
    n: int = 0
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data, but what it counts."""
        others = {
            name: tuple((words, other.to_json()) for words, other in getattr(self, name))
            for name in ("beside", "shown")
        }
        return {"value": self.value, "low": self.low, "high": self.high, "why": self.why} | others


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """Means over texts or prompts at places one after the other, such as layers, with 95 % intervals.

    Args:
        value, low, high: at each place; NaN where there is none.
        n: how many texts or prompts.

    Examples:
        >>> curve = Curve(np.array([0.5, 0.75]), np.array([0.25, 0.5]), np.array([0.75, 1.0]), n=8)
        >>> len(curve), curve.parts(first=1)
        (2, ([0.75], [0.5], [1.0]))
    """

    value: Float[np.ndarray, " place"]
    low: Float[np.ndarray, " place"]
    high: Float[np.ndarray, " place"]
    n: int

    def __len__(self) -> int:
        return len(self.value)

    def parts(self, first: int = 0) -> tuple[list[float], list[float], list[float]]:
        """Values and both ends, from a place on, as lists."""
        value, low, high = (part[first:].tolist() for part in (self.value, self.low, self.high))
        return value, low, high


def mean_of(values: Float[np.ndarray, " sample"], resamples: int = 999, seed: int = 0, unit: str = "") -> Estimate:
    """The mean over texts or problems.

    Examples:
        >>> mean_of(np.array([0.25, 0.25, 0.25])).low
        0.25
    """
    mean, low, high = mean_interval(np.asarray(values, float)[:, None], resamples, seed)
    return Estimate(float(mean[0]), float(low[0]), float(high[0]), n=len(values), unit=unit)


def mean_curve(values: Float[np.ndarray, "sample place"], resamples: int = 999, seed: int = 0) -> Curve:
    """The mean over texts or prompts at each place.

    Examples:
        >>> mean_curve(np.array([[0.0, 1.0], [0.0, 1.0]])).parts()
        ([0.0, 1.0], [0.0, 1.0], [0.0, 1.0])
    """
    return Curve(*mean_interval(values, resamples, seed), n=len(values))


def kept_share(before: Sequence[bool], after: Sequence[bool], seed: int = 0) -> Estimate:
    """sum(after) / sum(before) with a paired bootstrap interval over problems.

    Where every resample agrees, as where no answer changed, the bootstrap says nothing of how few problems there
    were; there the exact (Clopper-Pearson) interval of the share of solved problems is taken.

    Examples:
        >>> kept_share([True, True, True, False], [False] * 4).high > 0.5
        True
    """
    from scipy.stats import binomtest

    solved, none = sum(before), Estimate(nan, nan, nan, n=len(before))
    why = f"baseline solves {solved} of {len(before)}"
    if not solved:
        return replace(none, why=f"not measurable: {why}")
    low, high = ratio_interval(before, after, seed=seed)
    if isnan(low):
        return replace(none, value=sum(after) / solved, why=f"{why}, too few for an interval")
    if low == high:
        exact = binomtest(min(sum(after), solved), solved).proportion_ci(LEVEL, "exact")
        low, high = float(exact.low), float(exact.high)
    return Estimate(sum(after) / solved, low, high, why, n=len(before))

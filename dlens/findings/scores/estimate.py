"""A number with its interval, and a row of them: what findings hand to figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, final

import numpy as np
from jaxtyping import Float

from dlens.checks import check_fields, refuse, several
from dlens.findings.scores.intervals import (
    as_samples,
    check_answers,
    contrast_interval,
    mean_interval,
    ratio_interval,
)

__all__ = ["Curve", "Estimate", "kept_less", "kept_share", "mean_curve", "mean_of"]


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
        extremes: the lowest upper end and the highest lower end that any answers to these problems could give.
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
    extremes: tuple[float, float] = (-inf, inf)
    unit: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "write Estimate(0.5, 0.25, 0.75)")

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data, but what it counts and could have been."""
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

    def __post_init__(self) -> None:
        check_fields(self, "write Curve(value, low, high, n=8), with three arrays of the same places")
        for name in ("value", "low", "high"):
            given = getattr(self, name)
            if not isinstance(given, np.ndarray) or given.ndim != 1 or given.shape != np.shape(self.value):
                refuse(name, given, "an array [place], as many as of value", "let mean_curve make it")

    def __len__(self) -> int:
        return len(self.value)

    def parts(self, first: int = 0) -> tuple[list[float], list[float], list[float]]:
        """Values and both ends, from a place on, as lists."""
        value, low, high = (part[first:].tolist() for part in (self.value, self.low, self.high))
        return value, low, high


def mean_of(values: Float[np.ndarray, " sample"], unit: str = "") -> Estimate:
    """The mean over texts or problems.

    Examples:
        >>> mean_of(np.array([0.25, 0.25, 0.25])).low
        0.25
    """
    if not isinstance(unit, str):
        refuse("unit", unit, "what the numbers count, as text", "write unit='nats a token', or leave it out")
    samples = as_samples(values).astype(float)
    mean, low, high = mean_interval(samples)
    if mean.ndim:
        refuse("values", values, "one number a sample", "use mean_curve for several")
    return Estimate(float(mean), float(low), float(high), n=len(values), unit=unit)


def mean_curve(values: Float[np.ndarray, "sample place"]) -> Curve:
    """The mean over texts or prompts at each place.

    Examples:
        >>> mean_curve(np.array([[0.0, 1.0], [0.0, 1.0]])).parts()
        ([0.0, 1.0], [0.0, 1.0], [0.0, 1.0])
    """
    samples = as_samples(values)
    if samples.ndim != 2:
        refuse("values", values, "numbers [sample, place]", "use mean_of for one number a sample")
    return Curve(*mean_interval(samples), n=len(samples))


def kept_share(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """sum(after) / sum(before), of answers to the same problems, with the interval of `ratio_interval`.

    Examples:
        >>> kept_share([True, True, True, False], [False] * 4).value
        0.0
    """
    check_answers(before=before, after=after)
    solved, why = sum(before), f"baseline solves {sum(before)} of {len(before)}"
    if not solved:
        return Estimate(nan, nan, nan, f"not measurable: {why}", n=len(before))
    low, high = ratio_interval(before, after)
    (_, least), (most, _) = (ratio_interval(before, [own] * len(before)) for own in (False, True))
    return Estimate(sum(after) / solved, low, high, why, n=len(before), extremes=(least, most))


def kept_less(
    own: tuple[Sequence[bool], Sequence[bool]], others: Sequence[tuple[Sequence[bool], Sequence[bool]]]
) -> Estimate:
    """The kept share of one model minus the mean kept share of others, where all answered the same problems.

    The interval is that of `contrast_interval`, with the correlation of the shares over problems.

    Args:
        own, others: of each model, whether each problem is solved before and after.

    Examples:
        >>> solved, half = [True] * 8, [True, False] * 4
        >>> kept_less((solved, half), [(solved, solved)]).value
        -0.5
    """
    for what, given in {"own": [own], "others": others}.items():
        if not several(given) or len(given) == 0 or not all(several(pair) and len(pair) == 2 for pair in given):
            refuse(what, given, "answers before and after", "pass (before, after) for each model, two lists of flags")
    all_answers = (own, *others)
    check_answers(**{f"series {n}": series for n, series in enumerate(s for pair in all_answers for s in pair)})
    for before, after in all_answers:
        if not any(before):
            return kept_share(before, after)
    values = np.array([sum(after) / sum(before) for before, after in all_answers])
    ends = np.array([ratio_interval(before, after) for before, after in all_answers])
    weights = np.array([1.0, *[-1 / len(others)] * len(others)])
    low, high = contrast_interval(values, ends, weights, _correlation(all_answers, values))
    return Estimate(float(weights @ values), low, high, n=len(own[0]))


def _correlation(
    answers: Sequence[tuple[Sequence[bool], Sequence[bool]]], values: Float[np.ndarray, " model"]
) -> Float[np.ndarray, "model model"]:
    """Of kept shares: of what each problem adds to them, which is after minus share times before."""
    before, after = np.array(answers, float).transpose(1, 0, 2)
    added = after - values[:, None] * before
    spread = added.std(1)
    products = (added - added.mean(1, keepdims=True)) @ added.T / added.shape[1]
    scale = np.outer(spread, spread)
    correlation = np.divide(products, scale, out=np.zeros(scale.shape), where=scale > 0)
    np.fill_diagonal(correlation, 1)
    return correlation

"""Time alternatives in turn, so that whatever else a machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["Ratio", "Timings", "interleaved"]


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times.

    Args:
        value: median of the ratios of all rounds.
        low, high: their quartiles.
        rounds: how many there were.
    """

    value: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Timings:
    """Seconds of every alternative, round by round."""

    seconds: Mapping[str, list[float]]

    def ratio(self, name: str, base: str) -> Ratio:
        """How much longer `name` takes than `base`; each round gives one ratio."""
        ratios = [a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True)]
        if len(ratios) == 1:
            return Ratio(ratios[0], ratios[0], ratios[0], 1)
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(middle, low, high, len(ratios))


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    after: Callable[[], object] | None = None,
) -> Timings:
    """Time each case once a round: A B C, A B C, and so on.

    Args:
        cases: name -> what to run.
        rounds: how often each runs.
        warmup: rounds before that, which do not count.
        after: called after each case, and not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warmup + rounds):
        for name, case in cases.items():
            elapsed = _timed(case)
            if after is not None:
                after()
            if number >= warmup:
                seconds[name].append(elapsed)
    return Timings(seconds)


def _timed(case: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    case()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

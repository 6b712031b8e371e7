"""What a plan of skipped blocks costs and saves, measured piece by piece so that it can be followed and stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import final

from dlens.errors import Cancelled
from dlens.findings.effects.applied import flops_saved
from dlens.findings.scores.accuracy import score_problems
from dlens.findings.scores.batches import batched
from dlens.findings.scores.canvases import Canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.intervals import ratio_interval, share_interval
from dlens.findings.scores.loss import loss_of
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import Trace

__all__ = ["Estimate", "Planner", "line_of_python"]


@final
@dataclass(frozen=True)
class Estimate:
    """What is known of a plan so far; NaN where nothing is yet.

    Args:
        plan: the places that are skipped.
        flops_saved: share of the floating-point operations of one forward, as counted.
        baseline_loss, loss: without and with the plan, nats a token.
        baseline, accuracy: share of the problems so far that are solved, without and with the plan.
        low, high: 95 % interval of `accuracy` over problems, by Wilson.
        retained, retained_low, retained_high: accuracy / baseline, with its 95 % interval, of pairs.
        n: problems so far.
    """

    plan: tuple[int, ...]
    flops_saved: float = nan
    baseline_loss: float = nan
    loss: float = nan
    baseline: float = nan
    accuracy: float = nan
    low: float = nan
    high: float = nan
    retained: float = nan
    retained_low: float = nan
    retained_high: float = nan
    n: int = 0


@final
@dataclass
class Planner:
    """Measures plans for one model on one task; what it finds of the model as it is, it keeps.

    Args:
        trace: the model, without operations.
        task, problems: what it is asked.
        canvases: what the loss is measured on.
        batch_size: problems and texts at a time.
        max_new_tokens, sampler: of decoding; the task's and the family's by default.
    """

    trace: Trace
    task: Task
    problems: tuple[Problem, ...]
    canvases: Canvases
    batch_size: int
    max_new_tokens: int | None = None
    sampler: Sampler | None = None
    _losses: dict[int, float] = field(default_factory=dict)
    _solved: dict[int, tuple[bool, ...]] = field(default_factory=dict)

    def estimates(self, plan: Sequence[int], stop: threading.Event) -> Iterator[tuple[float, Estimate]]:
        """Measure a plan; after each piece of work the share that is done, and what is known.

        Raises:
            Cancelled: `stop` was set.
        """
        chain = self.trace.skip(list(plan)) if plan else self.trace
        texts = list(batched(self.canvases.rows, self.batch_size))
        problems = list(batched(self.problems, self.batch_size))
        pieces = 1 + len(texts) + len(problems)
        forward = chain.forward([self.canvases.rows[0].inputs])
        estimate = Estimate(tuple(plan), flops_saved=flops_saved(forward))
        yield 1 / pieces, estimate
        before, after = 0.0, 0.0
        for number, rows in enumerate(texts):
            _check(stop)
            part = replace(self.canvases, rows=tuple(rows))
            if number not in self._losses:
                self._losses[number] = loss_of(self.trace, part, self.batch_size).value
            before += self._losses[number]
            after += loss_of(chain, part, self.batch_size).value if plan else self._losses[number]
            if number == len(texts) - 1:
                estimate = replace(estimate, baseline_loss=before, loss=after)
            yield (2 + number) / pieces, estimate
        was: tuple[bool, ...] = ()
        now: tuple[bool, ...] = ()
        for number, part in enumerate(problems):
            was += self._baseline(number, part, stop)
            now += self._scored(chain, number, part, stop) if plan else self._solved[number]
            estimate = scored(estimate, was, now)
            yield (2 + len(texts) + number) / pieces, estimate

    def _baseline(self, number: int, part: Sequence[Problem], stop: threading.Event) -> tuple[bool, ...]:
        if number not in self._solved:
            self._solved[number] = self._scored(self.trace, number, part, stop)
        return self._solved[number]

    def _scored(self, chain: Trace, number: int, part: Sequence[Problem], stop: threading.Event) -> tuple[bool, ...]:
        _check(stop)
        decoding = Decoding(self.sampler, self.max_new_tokens, batch_size=self.batch_size, seed=number, progress=False)
        return score_problems(chain, self.task, part, decoding, cancel=stop).correct


def scored(estimate: Estimate, was: Sequence[bool], now: Sequence[bool]) -> Estimate:
    """An estimate with the accuracy on these problems, in pairs: solved without the plan, and with it."""
    low, high = share_interval(now)
    retained_low, retained_high = ratio_interval(was, now)
    return replace(
        estimate,
        baseline=sum(was) / len(was),
        accuracy=sum(now) / len(now),
        low=low,
        high=high,
        retained=sum(now) / sum(was) if any(was) else nan,
        retained_low=retained_low,
        retained_high=retained_high,
        n=len(now),
    )


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Cancelled("measuring was stopped; what was known is kept; start it again")


def line_of_python(model: str, plan: Sequence[int]) -> str:
    """The plan as one line of Python.

    Examples:
        >>> line_of_python("trio/diffusion", [3, 5])
        'dlens.trace("trio/diffusion").skip([3, 5])'
    """
    quoted = '"' + model.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"dlens.trace({quoted})" + (f".skip({list(plan)})" if plan else "")

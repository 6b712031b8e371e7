"""What a plan of skipped blocks costs and saves, measured piece by piece so that it can be followed and stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import final, get_args

from dlens.axes import Part
from dlens.errors import Cancelled
from dlens.findings.effects.applied import flops_saved
from dlens.findings.scores.accuracy import Scores, score_problems
from dlens.findings.scores.batches import batched
from dlens.findings.scores.canvases import Canvas, Canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.intervals import ratio_interval, share_interval
from dlens.findings.scores.loss import loss_of
from dlens.ops.base.scope import Third
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task
from dlens.tracing.chain import Trace

__all__ = ["Estimate", "Plan", "Planner", "scored"]


@final
@dataclass(frozen=True)
class Plan:
    """What is skipped, and when.

    Args:
        layers: places; where there are none, the rest says nothing.
        part: the whole block, or one half of it.
        steps: a third of decoding; None is all of it.

    Examples:
        >>> Plan((3, 5), "attn", "early").words, Plan((), "attn") == Plan()
        ('3, 5, attn, early', True)
    """

    layers: tuple[int, ...] = ()
    part: Part = "block"
    steps: Third | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            object.__setattr__(self, "part", "block")
            object.__setattr__(self, "steps", None)

    @property
    def words(self) -> str:
        """In a few words."""
        parts = [*map(str, self.layers), "" if self.part == "block" else self.part, self.steps or ""]
        return ", ".join(filter(None, parts)) or "none"

    def of(self, chain: Trace) -> Trace:
        """A trace that follows it."""
        return chain.skip(list(self.layers), part=self.part, steps=self.steps) if self.layers else chain

    def line(self, model: str) -> str:
        """That trace as one line of Python.

        Examples:
            >>> Plan((3, 5), steps="early").line("trio/diffusion")
            'dlens.trace("trio/diffusion").skip([3, 5], steps="early")'
        """
        quoted = '"' + model.replace("\\", "\\\\").replace('"', '\\"') + '"'
        part = "" if self.part == "block" else f', part="{self.part}"'
        steps = f', steps="{self.steps}"' if self.steps else ""
        return f"dlens.trace({quoted})" + (f".skip({list(self.layers)}{part}{steps})" if self.layers else "")


@final
@dataclass(frozen=True)
class Estimate:
    """What is known of a plan so far; NaN where nothing is yet.

    Args:
        plan: what is skipped.
        flops_saved: share of the floating-point operations, as counted: of one forward, or, of a plan in a third of
            decoding, of decoding the first problems.
        baseline_loss, loss: without and with the plan, nats a token; never of a plan in a third of decoding.
        baseline, accuracy: share of the problems so far that are solved, without and with the plan.
        low, high: 95 % interval of `accuracy` over problems, by Wilson.
        retained, retained_low, retained_high: accuracy / baseline, with its 95 % interval, of pairs.
        n: problems so far.
    """

    plan: Plan
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

    @property
    def no_thirds(self) -> str:
        """Why a plan cannot be in a third of decoding; empty where it can."""
        steps = self._decoding(0).of(self.task).planned_steps(self.trace.model)
        if not self.trace.target.has_noise:
            return "an autoregressive answer may end before its late third comes"
        return "" if steps >= len(get_args(Third)) else f"{steps} steps have no thirds"

    def estimates(self, plan: Plan, stop: threading.Event) -> Iterator[tuple[float, Estimate]]:
        """Measure a plan; after each piece of work the share that is done, and what is known.

        Raises:
            Cancelled: `stop` was set.
        """
        estimate, done = Estimate(plan), 0
        # A forward has one step, and so no thirds.
        stages = [self._answer] if plan.steps else [self._count, self._read, self._answer]
        pieces = len(self._problem_batches) + (0 if plan.steps else 1 + len(self._text_batches))
        for stage in stages:
            for known in stage(estimate, stop):
                estimate, done = known, done + 1
                yield done / pieces, estimate

    def _count(self, estimate: Estimate, stop: threading.Event) -> Iterator[Estimate]:
        forward = estimate.plan.of(self.trace).forward([self.canvases.rows[0].inputs])
        yield replace(estimate, flops_saved=flops_saved(forward))

    def _read(self, estimate: Estimate, stop: threading.Event) -> Iterator[Estimate]:
        chain, batches = estimate.plan.of(self.trace), self._text_batches
        before, after = 0.0, 0.0
        for number, rows in enumerate(batches):
            _check(stop)
            part = replace(self.canvases, rows=tuple(rows))
            if number not in self._losses:
                self._losses[number] = loss_of(self.trace, part, self.batch_size).value
            before += self._losses[number]
            after += loss_of(chain, part, self.batch_size).value if estimate.plan.layers else self._losses[number]
            # The loss is that of all texts.
            known = number == len(batches) - 1
            yield replace(estimate, baseline_loss=before, loss=after) if known else estimate

    def _answer(self, estimate: Estimate, stop: threading.Event) -> Iterator[Estimate]:
        plan, chain = estimate.plan, estimate.plan.of(self.trace)
        was: tuple[bool, ...] = ()
        now: tuple[bool, ...] = ()
        for number, problems in enumerate(self._problem_batches):
            if number not in self._solved:
                self._solved[number] = self._scored(self.trace, number, problems, stop).correct
            was += self._solved[number]
            if not plan.layers:
                now = was
            else:
                scores = self._scored(chain, number, problems, stop, count_flops=bool(plan.steps) and number == 0)
                now += scores.correct
                estimate = estimate if scores.flops is None else replace(estimate, flops_saved=flops_saved(scores))
            estimate = scored(estimate, was, now)
            yield estimate

    @property
    def _text_batches(self) -> list[Sequence[Canvas]]:
        return list(batched(self.canvases.rows, self.batch_size))

    @property
    def _problem_batches(self) -> list[Sequence[Problem]]:
        return list(batched(self.problems, self.batch_size))

    def _decoding(self, seed: int) -> Decoding:
        return Decoding(self.sampler, self.max_new_tokens, batch_size=self.batch_size, seed=seed, progress=False)

    def _scored(
        self,
        chain: Trace,
        number: int,
        problems: Sequence[Problem],
        stop: threading.Event,
        count_flops: bool = False,
    ) -> Scores:
        _check(stop)
        decoding = self._decoding(number)
        return score_problems(chain, self.task, problems, decoding, count_flops=count_flops, cancel=stop)


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

"""Count the floating-point operations of a run, one forward for each kind of step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from dlens.caches.cache import Halves
from dlens.models.identity import structure
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.scope import Scope
from dlens.ops.base.target import Target
from dlens.tracing.planning.described import describe
from dlens.tracing.planning.kv_cache import fullest_cache
from dlens.tracing.planning.plan import Plan, Planned
from dlens.tracing.probes.counting import counting
from dlens.tracing.probes.probe import probe
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.halves import HalfOutputs
from dlens.tracing.step.program import Active, Rows
from dlens.tracing.step.window import window_of

__all__ = ["StepCost", "count_steps"]


@dataclass(frozen=True)
class StepCost:
    """What decides how much a step computes.

    Args:
        batch: rows, both halves under guidance.
        query: positions computed.
        cached: positions in the KV cache.
        canvas: columns of the canvas whose keys a cached denoising step reads; 0 where all are computed.
        by_half: what each half of a block computes, and the columns of the prompts; None is all.
        halves: 2 under guidance.
        logits: of how many last positions logits are computed; 0 for all.
        structural: the operations that change what runs, with their rows.
    """

    batch: int
    query: int
    cached: int = 0
    halves: int = 1
    logits: int = 0
    structural: tuple[tuple[int, Rows], ...] = ()
    canvas: int = 0
    by_half: tuple[Halves, int] | None = None

    @property
    def varying(self) -> str | None:
        """The number in which steps of one kind differ, and in which what they cost is linear."""
        return "cached" if self.cached else "query" if self.canvas else None


def count_steps(model: Model, target: Target, ops: Sequence[Op], steps: Sequence[StepCost]) -> int:
    """Floating-point operations of the steps of a run.

    Every kind of step is run once and counted by `torch.utils.flop_count`; steps that differ in the length
    of their cache alone, or in how much of a canvas they compute, are counted at three lengths and read off the line
    through them, as attention is linear in it. Counts are kept with the model.

    Args:
        model: what ran.
        target: facts of the model.
        ops: the chain of the run; `StepCost.structural` points into it.
        steps: all steps.
    """
    with model.lock:
        counts = _Counts(model, target, tuple(ops), model.kept("flops", structure(model.module)))
        return _count_steps(counts, steps)


def _count_steps(counts: _Counts, steps: Sequence[StepCost]) -> int:
    groups: dict[StepCost, list[int]] = {}
    for step in steps:
        name = step.varying
        kind = step if name is None else replace(step, **{name: -1})
        groups.setdefault(kind, []).append(0 if name is None else getattr(step, name))
    return sum(_count_lengths(counts, kind, lengths) for kind, lengths in groups.items())


def _count_lengths(counts: _Counts, kind: StepCost, lengths: list[int]) -> int:
    if (name := kind.varying) is None:
        return len(lengths) * counts(kind)
    low, high = min(lengths), max(lengths)
    middle = (low + high) // 2
    at = {length: counts(replace(kind, **{name: length})) for length in {low, middle, high}}
    if high > low and (at[middle] - at[low]) * (high - low) == (at[high] - at[low]) * (middle - low):
        slope = (at[high] - at[low]) // (high - low)
        return sum(at[low] + slope * (length - low) for length in lengths)
    return sum(counts(replace(kind, **{name: length})) for length in lengths)


@dataclass(frozen=True)
class _Counts:
    """Counts one step of a kind, or remembers it in `kept`."""

    model: Model
    target: Target
    ops: tuple[Op, ...]
    kept: dict[Any, int]

    def __call__(self, cost: StepCost) -> int:
        # What decides is what an operation says that it changes, whatever it tells a reader.
        acting = [(repr(self._unscoped(index).structure), rows) for index, rows in cost.structural]
        key = (replace(cost, structural=()), tuple(acting))
        if key not in self.kept:
            self.kept[key] = self._count(cost)
        return self.kept[key]

    def _count(self, cost: StepCost) -> int:
        plan = Plan(tuple(self._unscoped(index) for index, _ in cost.structural), 1)
        actives = tuple(Active(p, rows) for p, (_, rows) in zip(plan.planned, cost.structural, strict=True))
        if cost.canvas or cost.by_half is not None:
            return self._count_canvas(plan, actives, cost)
        cache = fullest_cache(self.model.config) if cost.cached else None
        if cache is not None:
            self._run(plan, actives, cost, cost.cached, cache)
        with counting(self.model.module) as counted:
            self._run(plan, actives, cost, cost.query, cache)
        return counted.total(self.model.name)

    def _unscoped(self, index: int) -> Planned:
        said = describe(replace(self.ops[index], scope=Scope()), self.target)
        return Planned(index, said, frozenset({0}), None)

    def _count_canvas(self, plan: Plan, actives: tuple[Active, ...], cost: StepCost) -> int:
        """A step that computes some columns of a canvas, as a whole or in the halves of its blocks."""
        width, window = cost.canvas or cost.query, None
        ids = torch.full((cost.batch, width), self.model.pad_token_id, device=self.model.device)
        keys = CanvasKeys(self.model, width)

        def run() -> None:
            forward = partial(keys.logits, ids, None, window)
            probe(self.model, self.target, plan, ids, forward, cost.halves, actives, window)

        if cost.by_half is None:
            chosen = torch.zeros(cost.batch // cost.halves, width, dtype=torch.bool, device=self.model.device)
            chosen[:, : cost.query] = True
            window = window_of(chosen)
            with counting(self.model.module) as counted:
                run()
            return counted.total(self.model.name)
        now, prompt_width = cost.by_half
        outputs = HalfOutputs(self.model, keys, prompt_width)
        with outputs.step(Halves(True, True, 1.0)):
            run()
        with outputs.step(now), counting(self.model.module) as counted:
            run()
        return counted.total(self.model.name)

    def _run(self, plan: Plan, actives: tuple[Active, ...], cost: StepCost, query: int, cache: Any) -> None:
        ids = torch.full((cost.batch, query), self.model.pad_token_id, device=self.model.device)
        inputs: dict[str, Any] = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        if cost.logits:
            inputs["logits_to_keep"] = cost.logits
        arguments = self.model.family.inputs(ids, None) | inputs
        forward = partial(self.model.module, **arguments)
        probe(self.model, self.target, plan, ids, forward, cost.halves, actives)

"""Fit operations to one run: which steps each names, and what it does to the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from dlens.axes import TokenMask
from dlens.devices import sent
from dlens.ops.base.op import Op, Structure, Touch
from dlens.ops.base.target import Target
from dlens.tracing.planning.contradictions import joined_places, refuse_pair, refuse_same_keys
from dlens.tracing.planning.described import Described, describe
from dlens.tracing.planning.tokens import fixed_mask

__all__ = ["Plan", "Planned", "plan_run"]

# The parts that write keys and values.
_CACHED_PARTS = ("block", "attn")


@dataclass(frozen=True, eq=False)
class Planned:
    """An operation of one run; two are the same where they are one object.

    Args:
        index: its position in the chain.
        said: the operation with what it says of itself, everything found at the start of the run filled in.
        steps: the steps it names.
        fixed: [batch, position] of the whole run where its tokens do not change, else None.
        fixed_sources: the same of the keys that it acts on.
    """

    index: int
    said: Described
    steps: frozenset[int]
    fixed: Tensor | None
    fixed_sources: Tensor | None = None

    @property
    def op(self) -> Op:
        """The operation."""
        return self.said.op

    @property
    def touches(self) -> tuple[Touch, ...]:
        """The hook points that it reads or writes."""
        return self.said.touches

    @property
    def structure(self) -> Structure:
        """What it changes of what is computed."""
        return self.said.structure


@dataclass(frozen=True)
class Plan:
    """The operations of one run.

    Args:
        planned: in the order written.
        n_steps: how many steps are planned.
    """

    planned: tuple[Planned, ...]
    n_steps: int

    def touches(self, point: str) -> bool:
        """Whether any operation reads or writes a point; a metric reads all logits."""
        if point == "logits" and any(touch.use == "gradient" for planned in self.planned for touch in planned.touches):
            return True
        return any(touch.point == point for planned in self.planned for touch in planned.touches)

    def of(self, real: TokenMask) -> Plan:
        """The same plan for other prompts: where it names positions, these are theirs; else itself.

        Args:
            real: [batch, position] over the whole run of these prompts.
        """
        return self._with_masks(
            lambda op: (fixed_mask(op.op.selection(), real, strict=False), fixed_mask(op.op.sources(), real, False))
        )

    def to(self, device: torch.device) -> Plan:
        """The same plan with the positions that it names on a device, which is not waited for."""
        return self._with_masks(
            lambda op: tuple(None if mask is None else sent(mask, device) for mask in (op.fixed, op.fixed_sources))
        )

    def _with_masks(self, masks: Callable[[Planned], tuple[Tensor | None, ...]]) -> Plan:
        if all(op.fixed is None and op.fixed_sources is None for op in self.planned):
            return self
        made = [(op, *masks(op)) for op in self.planned]
        return replace(self, planned=tuple(replace(op, fixed=own, fixed_sources=keys) for op, own, keys in made))

    def always(self, planned: Planned) -> bool:
        """Whether an operation acts at every step, in every row."""
        return len(planned.steps) == self.n_steps and planned.op.scope.noise is None

    def breaks_cache(self) -> tuple[Planned, ...]:
        """Operations under which layers would disagree on what their KV cache holds.

        A cache entry belongs to the weights and a skip to the place: where a swap at some steps moves
        a skipped place, weights that filled their entry so far stop, and others begin.
        """
        chain = [p.said for p in self.planned]
        passing = [p.said for p in self.planned if p.structure.swaps and not self.always(p)]
        moved = set[int]().union(*(joined_places(swap, chain) for swap in passing))
        return tuple(
            p
            for p in self.planned
            if p.structure.runs
            or _writes_rotated_keys(p)
            or _uncached(p)
            and not (self.always(p) and moved.isdisjoint(_uncached(p)))
        )

    def uncached_layers(self) -> set[int]:
        """The layers that write nothing into the KV cache."""
        return set[int]().union(*(_uncached(p) for p in self.planned))


def _writes_rotated_keys(planned: Planned) -> bool:
    """Whether an operation changes keys after the cache took them: later steps would read the old ones."""
    return any(touch.point == "rot_k" and touch.use == "write" for touch in planned.touches)


def _uncached(planned: Planned) -> set[int]:
    """The layers where an operation skips what writes keys and values."""
    return {layer for layer, part in planned.structure.skips.items() if part in _CACHED_PARTS}


def plan_run(ops: Sequence[Op], target: Target, n_steps: int, real: TokenMask) -> Plan:
    """Check every operation against the run.

    Args:
        ops: the chain.
        target: facts of the model.
        n_steps: planned steps.
        real: [batch, position] over the whole run.

    Raises:
        ValueError, IndexError: before anything is computed.
    """
    planned = []
    for index, op in enumerate(ops):
        said, steps = describe(op, target), op.scope.resolve(n_steps)
        if not steps:
            raise ValueError(
                f"{op.words()}: names no step of {n_steps}; expected at least one; name other steps, or plan more"
            )
        planned.append(Planned(index, said, steps, fixed_mask(op.selection(), real), fixed_mask(op.sources(), real)))
    refuse_same_keys(ops)
    chain = [one.said for one in planned]
    for a, b in combinations(planned, 2):
        if a.steps & b.steps:
            refuse_pair(a.said, b.said, chain)
    return Plan(tuple(planned), n_steps)

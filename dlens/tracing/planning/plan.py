"""Fit operations to one run: which steps each names, and what it does to the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from dlens.axes import TokenMask
from dlens.ops.op import Edit, Op, Target
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Skip
from dlens.ops.swap import Swap
from dlens.tracing.planning.contradictions import joined_places, refuse_pair, refuse_same_keys
from dlens.tracing.planning.tokens import fixed_mask

__all__ = ["Plan", "Planned", "plan_run"]

# The parts that write keys and values.
_CACHED_PARTS = ("block", "attn")


@dataclass(frozen=True)
class Planned:
    """An operation of one run.

    Args:
        index: its position in the chain.
        op: the operation, with everything found at the start of the run filled in.
        steps: the steps it names.
        fixed: [batch, position] of the whole run where its tokens do not change, else None.
    """

    index: int
    op: Op
    steps: frozenset[int]
    fixed: Tensor | None


@dataclass(frozen=True)
class Plan:
    """The operations of one run.

    Args:
        planned: in the order written.
        n_steps: how many steps are planned.
    """

    planned: tuple[Planned, ...]
    n_steps: int

    def always(self, planned: Planned) -> bool:
        """Whether an operation acts at every step, in every row."""
        return len(planned.steps) == self.n_steps and planned.op.scope.noise is None

    def breaks_cache(self, target: Target) -> tuple[Planned, ...]:
        """Operations under which layers would disagree on what their KV cache holds.

        A cache entry belongs to the weights and a skip to the place: where a swap at some steps moves
        a skipped place, weights that filled their entry so far stop, and others begin.
        """
        swaps = [p.op for p in self.planned if isinstance(p.op, Swap)]
        passing = [p.op for p in self.planned if isinstance(p.op, Swap) and not self.always(p)]
        moved = set[int]().union(*(joined_places(swap, swaps, target) for swap in passing))
        return tuple(
            p
            for p in self.planned
            if isinstance(p.op, Repeat)
            or isinstance(p.op, Skip)
            and p.op.part in _CACHED_PARTS
            and not (self.always(p) and moved.isdisjoint(target.layers(p.op.layers)))
        )

    def uncached_layers(self, target: Target) -> set[int]:
        """The layers that write nothing into the KV cache."""
        skips = [p.op for p in self.planned if isinstance(p.op, Skip) and p.op.part in _CACHED_PARTS]
        return {layer for skip in skips for layer in target.layers(skip.layers)}


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
        op.check(target)
        steps = op.scope.resolve(n_steps)
        if not steps:
            raise ValueError(
                f"{op.words()}: names no step of {n_steps}; expected at least one; name other steps, or plan more"
            )
        planned.append(Planned(index, op, steps, fixed_mask(op.tokens, real) if isinstance(op, Edit) else None))
    refuse_same_keys(ops)
    for a, b in combinations(planned, 2):
        if a.steps & b.steps:
            refuse_pair(a.op, b.op, ops, target)
    return Plan(tuple(planned), n_steps)

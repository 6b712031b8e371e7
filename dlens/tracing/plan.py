"""Fit operations to one run: which steps each names, what contradicts what, what it does to the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import Tensor

from dlens.axes import BLOCK_POINTS, TokenMask
from dlens.measures.measure import Measure
from dlens.ops.capture import Capture
from dlens.ops.op import INNER_POINTS, Edit, Op, Scope, Target
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Skip
from dlens.ops.swap import Swap
from dlens.tracing.tokens import fixed_mask

__all__ = ["Measured", "Plan", "Planned", "plan_run", "refuse_contradictions"]

_SKIPPED_POINTS = {
    "block": frozenset(INNER_POINTS),
    "attn": frozenset({"pattern", "attn_out"}),
    "mlp": frozenset({"mlp_out"}),
}
# The parts that write keys and values.
_CACHED_PARTS = ("block", "attn")


@dataclass(frozen=True, kw_only=True)
class Measured(Op):
    """A measure in a chain of operations."""

    measure: Measure

    def check(self, target: Target) -> None:
        super().check(target)
        for point in self.measure.points:
            if point not in BLOCK_POINTS:
                raise ValueError(
                    f"{self.measure.key} reads {point!r}; expected points of a block: {', '.join(BLOCK_POINTS)}; "
                    f"change its `points`"
                )
            target.require_point(point)

    def words(self) -> str:
        return f"measure {self.measure.key}"

    def to_json(self) -> dict[str, Any]:
        return {"op": "measure", "measure": type(self.measure).__name__, "key": self.measure.key}


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


def joined_places(swap: Swap, swaps: Sequence[Op], target: Target) -> set[int]:
    """The places whose block depends on whether a swap acts: its own, and those that other swaps join to them."""
    places = set(target.layers((swap.i, swap.j)))
    pairs = [set(target.layers((other.i, other.j))) for other in swaps if isinstance(other, Swap)]
    while more := [pair for pair in pairs if pair & places and not pair <= places]:
        places.update(*more)
    return places


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
            _refuse_pair(a.op, b.op, ops, target)
    return Plan(tuple(planned), n_steps)


def refuse_contradictions(ops: Sequence[Op], target: Target) -> None:
    """Refuse operations that contradict each other whatever the run: those without a limit on steps."""
    refuse_same_keys(ops)
    unlimited = [op for op in ops if op.scope.steps is None]
    for a, b in combinations(unlimited, 2):
        _refuse_pair(a, b, ops, target)


def refuse_same_keys(ops: Sequence[Op]) -> None:
    """Refuse captures and measures that would stand under one name in the record.

    Raises:
        ValueError: names the key.
    """
    captures = [op.key for op in ops if isinstance(op, Capture)]
    measures = [op.measure.key for op in ops if isinstance(op, Measured)]
    for keys, where, fix in (
        (captures, "record", "name all layers and steps in one capture"),
        (measures, "record.measures", "pass name= to one of them"),
    ):
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"{where}[{twice!r}] is asked for twice; expected different keys; {fix}")


def _refuse_pair(a: Op, b: Op, ops: Sequence[Op], target: Target) -> None:
    if not _noise_meets(a.scope, b.scope):
        return
    for first, second in ((a, b), (b, a)):
        reason = _contradiction(first, second, ops, target)
        if reason:
            raise ValueError(
                f"'{a.words()}' and '{b.words()}' cannot both hold: {reason}; expected operations that do not meet at "
                f"one place and step; name other layers or steps for one of them"
            )


def _noise_meets(a: Scope, b: Scope) -> bool:
    if a.noise is None or b.noise is None:
        return True
    return max(a.noise[0], b.noise[0]) < min(a.noise[1], b.noise[1])


def _contradiction(a: Op, b: Op, ops: Sequence[Op], target: Target) -> str | None:
    """Why `b` cannot be done where `a` is, or None."""
    if isinstance(a, Skip):
        return _skip_contradiction(a, b, target)
    if isinstance(a, Repeat):
        return _repeat_contradiction(a, b, target)
    if isinstance(a, Swap) and a.scope.noise is not None:
        return _mixed_swap_contradiction(joined_places(a, ops, target), b, target)
    return None


def _skip_contradiction(a: Skip, b: Op, target: Target) -> str | None:
    places = set(target.layers(a.layers))
    if isinstance(b, Repeat) and target.layer(b.layer) in places:
        return f"layer {target.layer(b.layer)} is skipped and repeated"
    points, layers = _inner(b, target)
    shared, missing = places & layers, points & _SKIPPED_POINTS[a.part]
    if shared and missing:
        return f"{min(missing)} of layer {min(shared)} does not exist where its {a.part} is skipped"
    return None


def _repeat_contradiction(a: Repeat, b: Op, target: Target) -> str | None:
    place = target.layer(a.layer)
    if isinstance(b, Repeat) and target.layer(b.layer) == place:
        return f"layer {place} is repeated twice"
    points, layers = _inner(b, target)
    if points and place in layers:
        return f"{min(points)} of layer {place} would have one value a run, and the layer runs {a.times} times"
    return None


def _mixed_swap_contradiction(moved: set[int], b: Op, target: Target) -> str | None:
    """Why `b` cannot be done where the rows of a batch run different blocks, at the places `moved`."""
    points, layers = _inner(b, target)
    shared = layers & moved
    if points and shared:
        return f"{min(points)} of layer {min(shared)} would belong to two blocks where the rows of a batch disagree"
    if isinstance(b, Repeat) and target.layer(b.layer) in moved:
        return f"layer {target.layer(b.layer)} is repeated and swapped row by row"
    if isinstance(b, Skip) and b.part != "block" and moved.intersection(target.layers(b.layers)):
        return f"half of a block cannot be skipped where rows run different blocks (layers {sorted(moved)})"
    return None


def _inner(op: Op, target: Target) -> tuple[set[str], set[int]]:
    """The points inside a block that an operation reads or writes, and at which places."""
    if isinstance(op, Measured):
        return set(op.measure.points).intersection(INNER_POINTS), set(range(target.n_layers))
    if isinstance(op, Capture) and op.point in INNER_POINTS:
        return {op.point}, set(target.layers(op.layers))
    if isinstance(op, Edit) and op.at in INNER_POINTS:
        return {op.at}, set(target.layers(op.layers))
    return set(), set()

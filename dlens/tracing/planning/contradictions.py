"""Which operations of a chain cannot both hold, and which would stand under one name in the record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from dlens.ops.capture import Capture
from dlens.ops.op import INNER_POINTS, Edit, Op, Scope, Target
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Skip
from dlens.ops.swap import Swap
from dlens.tracing.planning.measured import Measured

__all__ = ["joined_places", "refuse_contradictions", "refuse_pair", "refuse_same_keys"]

_SKIPPED_POINTS = {
    "block": frozenset(INNER_POINTS),
    "attn": frozenset({"pattern", "attn_out"}),
    "mlp": frozenset({"mlp_out"}),
}


def refuse_contradictions(ops: Sequence[Op], target: Target) -> None:
    """Refuse operations that contradict each other whatever the run: those without a limit on steps."""
    refuse_same_keys(ops)
    unlimited = [op for op in ops if op.scope.steps is None]
    for a, b in combinations(unlimited, 2):
        refuse_pair(a, b, ops, target)


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


def refuse_pair(a: Op, b: Op, ops: Sequence[Op], target: Target) -> None:
    """Refuse two operations that cannot both hold where their steps meet."""
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


def joined_places(swap: Swap, swaps: Sequence[Op], target: Target) -> set[int]:
    """The places whose block depends on whether a swap acts: its own, and those that other swaps join to them."""
    places = set(target.layers((swap.i, swap.j)))
    pairs = [set(target.layers((other.i, other.j))) for other in swaps if isinstance(other, Swap)]
    while more := [pair for pair in pairs if pair & places and not pair <= places]:
        places.update(*more)
    return places

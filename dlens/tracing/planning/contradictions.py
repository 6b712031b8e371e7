"""Which operations of a chain cannot both hold, and which would stand under one name in the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from dlens.axes import POINTS, Part
from dlens.ops.base.op import Op
from dlens.ops.base.scope import Scope
from dlens.ops.base.target import Target
from dlens.tracing.planning.described import Described, describe

__all__ = ["joined_places", "refuse_contradictions", "refuse_pair", "refuse_same_keys"]


def refuse_contradictions(ops: Sequence[Op], target: Target) -> None:
    """Check each operation, and refuse those that contradict each other whatever the run: without a limit on steps."""
    said = [describe(op, target) for op in ops]
    refuse_same_keys(ops)
    unlimited = [one for one in said if one.op.scope.steps is None]
    for a, b in combinations(unlimited, 2):
        refuse_pair(a, b, said)


def refuse_same_keys(ops: Sequence[Op]) -> None:
    """Refuse operations that would stand under one name in the record.

    Raises:
        ValueError: names the key.
    """
    seen = set[tuple[str, str]]()
    for kept in sorted((kept for op in ops if (kept := op.keeps())), key=lambda kept: kept.where):
        if (kept.where, kept.key) in seen:
            raise ValueError(f"{kept.where}[{kept.key!r}] is asked for twice; expected different keys; {kept.fix}")
        seen.add((kept.where, kept.key))


def refuse_pair(a: Described, b: Described, chain: Sequence[Described]) -> None:
    """Refuse two operations that cannot both hold where their steps meet.

    Args:
        a, b: the two.
        chain: all operations, as swaps join places.
    """
    if not _noise_meets(a.op.scope, b.op.scope):
        return
    for first, second in ((a, b), (b, a)):
        reason = next(_reasons(first, second, chain), None)
        if reason:
            raise ValueError(
                f"'{a.op.words()}' and '{b.op.words()}' cannot both hold: {reason}; expected operations that do not "
                f"meet at one place and step; name other layers or steps for one of them"
            )


def _noise_meets(a: Scope, b: Scope) -> bool:
    if a.noise is None or b.noise is None:
        return True
    return max(a.noise[0], b.noise[0]) < min(a.noise[1], b.noise[1])


def _reasons(a: Described, b: Described, chain: Sequence[Described]) -> Iterator[str]:
    """Why `b` cannot be done where `a` is."""
    yield from _where_skipped(a, b)
    yield from _where_repeated(a, b)
    if a.structure.swaps and a.op.scope.noise is not None:
        yield from _where_rows_disagree(joined_places(a, chain), b)


def _where_skipped(a: Described, b: Described) -> Iterator[str]:
    for layer, part in sorted(a.structure.skips.items()):
        if layer in b.structure.runs:
            yield f"layer {layer} is skipped and repeated"
        missing = [point for point in _inner_points(b, layer) if not POINTS[point].exists_without(part)]
        if missing:
            yield f"{min(missing)} of layer {layer} does not exist where its {part} is skipped"


def _where_repeated(a: Described, b: Described) -> Iterator[str]:
    for layer, times in sorted(a.structure.runs.items()):
        if layer in b.structure.runs:
            yield f"layer {layer} is repeated twice"
        points = _inner_points(b, layer)
        if points:
            yield f"{min(points)} of layer {layer} would have one value a run, and the layer runs {times} times"


def _where_rows_disagree(moved: set[int], b: Described) -> Iterator[str]:
    """At the places `moved` the rows of a batch may run different blocks."""
    for layer in sorted(moved):
        points = _inner_points(b, layer)
        if points:
            yield f"{min(points)} of layer {layer} would belong to two blocks where the rows of a batch disagree"
        if layer in b.structure.runs:
            yield f"layer {layer} is repeated and swapped row by row"
    halves: dict[int, Part] = {layer: part for layer, part in b.structure.skips.items() if part != "block"}
    if not moved.isdisjoint(halves):
        yield f"half of a block cannot be skipped where rows run different blocks (layers {sorted(moved)})"


def _inner_points(b: Described, layer: int) -> list[str]:
    """The points inside a block that an operation reads or writes at a place."""
    return [touch.point for touch in b.touches if layer in touch.layers and POINTS[touch.point].inner]


def joined_places(swap: Described, chain: Sequence[Described]) -> set[int]:
    """The places whose block depends on whether a swap acts: its own, and those that other swaps join to them."""
    places = {place for pair in swap.structure.swaps for place in pair}
    pairs = [set(pair) for other in chain for pair in other.structure.swaps]
    while more := [pair for pair in pairs if pair & places and not pair <= places]:
        places.update(*more)
    return places

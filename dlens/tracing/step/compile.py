"""From the operations of a run to the program of one step: which act, in which rows, and at which places."""

from __future__ import annotations

from collections.abc import Sequence

from dlens.axes import POINTS
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import Plan
from dlens.tracing.step.program import Acting, Active, Here, LayerProgram, MeasureGroup, StepProgram
from dlens.tracing.step.state import StepState

__all__ = ["active_at", "compile_step"]


def active_at(plan: Plan, state: StepState) -> tuple[Active, ...]:
    """The operations that act at a step, with the rows they act in."""
    actives = []
    for planned in plan.planned:
        if state.step not in planned.steps:
            continue
        if planned.op.scope.noise is None:
            actives.append(Active(planned, None))
            continue
        assert state.noise is not None
        rows = tuple(planned.op.scope.in_noise(noise) for noise in state.noise)
        if any(rows):
            actives.append(Active(planned, None if all(rows) else rows))
    return tuple(actives)


def compile_step(actives: Sequence[Active], target: Target) -> StepProgram:
    """Sort active operations by the place and point where they act."""
    blocks = list(range(target.n_layers))
    layers: dict[int, LayerProgram] = {}
    root: dict[str, Here] = {}
    groups = {group.index: group for group in _groups(actives)}
    for active in actives:
        _place_structure(active, layers, blocks)
        _place_touches(active, layers, root)
        if active.planned.index in groups:
            _place_group(groups[active.planned.index], target, layers)
    _place_mixed_swaps(actives, target, layers, blocks)
    structural = tuple((a.planned.index, a.rows) for a in actives if a.planned.structure)
    quiet = frozenset(layer for layer, todo in layers.items() if todo.quiet)
    return StepProgram(tuple(blocks), layers, root, structural, quiet)


def _groups(actives: Sequence[Active]) -> tuple[MeasureGroup, ...]:
    """The measures in groups, divided by what is written between them."""
    groups: dict[int, list[Active]] = {}
    writes = 0
    for active in actives:
        uses = {touch.use for touch in active.planned.touches}
        if "measure" in uses:
            groups.setdefault(writes, []).append(active)
        writes += "write" in uses
    return tuple(MeasureGroup(tuple(group)) for group in groups.values())


def _place_structure(active: Active, layers: dict[int, LayerProgram], blocks: list[int]) -> None:
    structure = active.planned.structure
    for layer, part in structure.skips.items():
        layers.setdefault(layer, LayerProgram()).skips.setdefault(part, []).append(active)
    for layer, times in structure.runs.items():
        layers.setdefault(layer, LayerProgram()).runs.append((times, active.rows))
    if active.rows is None:
        _exchange(blocks, structure.swaps)


def _place_touches(active: Active, layers: dict[int, LayerProgram], root: dict[str, Here]) -> None:
    for touch in active.planned.touches:
        if touch.use == "measure":
            continue
        acting = Acting(active, touch.point, touch.use)
        if not POINTS[touch.point].in_block:
            root.setdefault(touch.point, []).append(acting)
        for layer in touch.layers:
            layers.setdefault(layer, LayerProgram()).points.setdefault(touch.point, []).append(acting)


def _place_group(group: MeasureGroup, target: Target, layers: dict[int, LayerProgram]) -> None:
    for layer in range(target.n_layers):
        program = layers.setdefault(layer, LayerProgram())
        program.groups.append(group)
        for point in group.points:
            program.points.setdefault(point, []).append(group)


def _place_mixed_swaps(
    actives: Sequence[Active], target: Target, layers: dict[int, LayerProgram], blocks: list[int]
) -> None:
    """Swaps in which the rows of the batch disagree: each row's own order of blocks, place by place."""
    swaps = [a for a in actives if a.planned.structure.swaps]
    mixed = [a.rows for a in swaps if a.rows is not None]
    if not mixed:
        return
    orders = [_row_order(swaps, row, target.n_layers) for row in range(len(mixed[0]))]
    for place in range(target.n_layers):
        for block in sorted({order[place] for order in orders} - {blocks[place]}):
            rows = tuple(order[place] == block for order in orders)
            layers.setdefault(place, LayerProgram()).other_blocks.append((block, rows))


def _row_order(swaps: Sequence[Active], row: int, n_layers: int) -> list[int]:
    order = list(range(n_layers))
    for active in swaps:
        if active.rows is None or active.rows[row]:
            _exchange(order, active.planned.structure.swaps)
    return order


def _exchange(order: list[int], swaps: Sequence[tuple[int, int]]) -> None:
    for i, j in swaps:
        order[i], order[j] = order[j], order[i]

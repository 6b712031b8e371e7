"""What the engine does at each place of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dlens.axes import BLOCK_POINTS
from dlens.ops.capture import Capture
from dlens.ops.op import Edit, Op, Target
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Part, Skip
from dlens.ops.swap import Swap
from dlens.tracing.planning.measured import Measured
from dlens.tracing.planning.plan import Plan, Planned
from dlens.tracing.step.state import StepState

__all__ = ["Active", "LayerProgram", "StepProgram", "View", "active_at", "compile_step", "reads_block"]

# What a view or a capture may read from hooks of PyTorch around a block.
_AROUND = frozenset({"resid_pre", "resid_post"})

Rows = tuple[bool, ...] | None
"""Per row whether an operation acts; None is every row."""


@dataclass(frozen=True)
class Active:
    """An operation that acts at this step.

    Args:
        planned: the operation.
        rows: in which rows; None is all of them.
    """

    planned: Planned
    rows: Rows

    @property
    def op(self) -> Op:
        """The operation."""
        return self.planned.op


@dataclass(frozen=True)
class View:
    """Measures that see the same values, since no edit stands between them in the chain.

    Args:
        measures: in the order written.
    """

    measures: tuple[Active, ...]

    @property
    def index(self) -> int:
        """A number that tells the views of a step apart."""
        return self.measures[0].planned.index

    @cached_property
    def points(self) -> frozenset[str]:
        """What any of them reads."""
        return frozenset(p for a in self.measures if isinstance(a.op, Measured) for p in a.op.measure.points)


@dataclass
class LayerProgram:
    """What happens at one place.

    Args:
        skips: part -> rows in which it is skipped.
        repeats: (number of runs, rows).
        other_blocks: (index of the block, rows) to run in this place for some rows only.
        points: hook point -> what reads or writes there, in the order written.
        views: measures fed at this place.
    """

    skips: dict[Part, list[Active]] = field(default_factory=dict)
    repeats: list[Active] = field(default_factory=list)
    other_blocks: list[tuple[int, Rows]] = field(default_factory=list)
    points: dict[str, list[Active | View]] = field(default_factory=dict)
    views: list[View] = field(default_factory=list)

    def reads(self, point: str) -> bool:
        """Whether anything reads or writes a point."""
        return point in self.points

    @property
    def quiet(self) -> bool:
        """Whether the block runs as it is and is only read once it has."""
        if self.skips or self.repeats or self.other_blocks:
            return False
        return all(_reads_block(active) for actives in self.points.values() for active in actives)

    def skipped_rows(self, batch: int, device: torch.device) -> Tensor | None:
        """Per row whether the whole block is skipped; None where none is."""
        actives = self.skips.get("block")
        if not actives:
            return None
        rows = [any(a.rows is None or a.rows[b] for a in actives) for b in range(batch)]
        return torch.tensor(rows, device=device)


@dataclass(frozen=True)
class StepProgram:
    """What happens at one step.

    Args:
        blocks: which block runs in each place.
        layers: place -> program, for the places where anything happens.
        embed, logits: what reads or writes there.
        structural: the operations that change what is computed, with their rows: the signature for FLOPs.
        quiet: the places that are only read; the others are visited in the order of the forward.
    """

    blocks: tuple[int, ...]
    layers: dict[int, LayerProgram]
    embed: tuple[Active, ...]
    logits: tuple[Active, ...]
    structural: tuple[tuple[int, Rows], ...]
    quiet: frozenset[int]


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
    layers: dict[int, LayerProgram] = {}
    root: dict[str, list[Active]] = {"embed": [], "logits": []}
    blocks = list(range(target.n_layers))
    views = {view.index: view for view in _views(actives)}
    structural = []
    for active in actives:
        op = active.op
        if isinstance(op, (Skip, Repeat, Swap)):
            structural.append((active.planned.index, active.rows))
        if isinstance(op, Swap) and active.rows is None:
            i, j = target.layer(op.i), target.layer(op.j)
            blocks[i], blocks[j] = blocks[j], blocks[i]
        elif active.planned.index in views:
            _place_view(views[active.planned.index], target, layers)
        else:
            _place(active, target, layers, root)
    _place_mixed_swaps(actives, target, layers, blocks)
    quiet = frozenset(layer for layer, todo in layers.items() if todo.quiet)
    return StepProgram(tuple(blocks), layers, tuple(root["embed"]), tuple(root["logits"]), tuple(structural), quiet)


def reads_block(op: Op) -> bool:
    """Whether an operation only reads, and what it reads of a block stands when the block has run.

    A block may write over its input, so that a capture of it has to copy before.
    """
    if isinstance(op, Measured):
        return _AROUND.issuperset(op.measure.points)
    return isinstance(op, Capture) and op.point == "resid_post"


def _reads_block(active: Active | View) -> bool:
    return _AROUND.issuperset(active.points) if isinstance(active, View) else reads_block(active.op)


def _views(actives: Sequence[Active]) -> tuple[View, ...]:
    """The measures in groups, divided by the edits between them."""
    groups: dict[int, list[Active]] = {}
    edits = 0
    for active in actives:
        if isinstance(active.op, Measured):
            groups.setdefault(edits, []).append(active)
        edits += isinstance(active.op, Edit)
    return tuple(View(tuple(group)) for group in groups.values())


def _place_view(view: View, target: Target, layers: dict[int, LayerProgram]) -> None:
    for layer in range(target.n_layers):
        program = layers.setdefault(layer, LayerProgram())
        program.views.append(view)
        for point in view.points:
            program.points.setdefault(point, []).append(view)


def _place(active: Active, target: Target, layers: dict[int, LayerProgram], root: dict[str, list[Active]]) -> None:
    op = active.op
    if isinstance(op, Skip):
        for layer in target.layers(op.layers):
            layers.setdefault(layer, LayerProgram()).skips.setdefault(op.part, []).append(active)
    elif isinstance(op, Repeat):
        layers.setdefault(target.layer(op.layer), LayerProgram()).repeats.append(active)
    elif isinstance(op, (Capture, Edit)):
        point = op.point if isinstance(op, Capture) else op.at
        if point not in BLOCK_POINTS:
            root[point].append(active)
            return
        for layer in target.layers(op.layers):
            layers.setdefault(layer, LayerProgram()).points.setdefault(point, []).append(active)


def _place_mixed_swaps(
    actives: Sequence[Active], target: Target, layers: dict[int, LayerProgram], blocks: list[int]
) -> None:
    """Swaps in which the rows of the batch disagree: each row's own order of blocks, place by place."""
    swaps = [a for a in actives if isinstance(a.op, Swap)]
    mixed = [a for a in swaps if a.rows is not None]
    if not mixed:
        return
    batch = len(mixed[0].rows or ())
    orders = [_row_order(swaps, row, target) for row in range(batch)]
    for place in range(target.n_layers):
        for block in sorted({order[place] for order in orders} - {blocks[place]}):
            rows = tuple(order[place] == block for order in orders)
            layers.setdefault(place, LayerProgram()).other_blocks.append((block, rows))


def _row_order(swaps: Sequence[Active], row: int, target: Target) -> list[int]:
    order = list(range(target.n_layers))
    for active in swaps:
        assert isinstance(active.op, Swap)
        if active.rows is None or active.rows[row]:
            i, j = target.layer(active.op.i), target.layer(active.op.j)
            order[i], order[j] = order[j], order[i]
    return order

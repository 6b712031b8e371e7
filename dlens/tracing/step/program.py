"""What the engine does at each place of one step, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from dlens.axes import POINTS, Part
from dlens.ops.base.op import Op
from dlens.tracing.planning.plan import Planned
from dlens.tracing.step.state import StepState

__all__ = [
    "Acting",
    "Active",
    "Here",
    "LayerProgram",
    "MeasureGroup",
    "Rows",
    "Spot",
    "StepProgram",
    "around_blocks",
]

Rows = tuple[bool, ...] | None
"""Per row whether an operation acts; None is every row."""

# What hooks of PyTorch around a block can give to a use, as a block may write over its input: a copy of what
# entered has to be made before it runs.
_AROUND = {
    "measure": frozenset({"resid_pre", "resid_post"}),
    "keep": frozenset({"resid_post"}),
    "write": frozenset(),
    "gradient": frozenset(),
}


def around_blocks(planned: Planned) -> bool:
    """Whether an operation only reads, and hooks around the blocks can give it all that it reads."""
    if not planned.said.reads_only:
        return False
    return all(touch.point in _AROUND[touch.use] for touch in planned.touches)


@dataclass(frozen=True)
class Spot:
    """A value's place in a step.

    Args:
        point: hook point.
        layer: its layer, None outside of blocks.
        state: what is known of the step.
    """

    point: str
    layer: int | None
    state: StepState


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
class MeasureGroup:
    """Measures that see the same values, since nothing is written between them in the chain.

    Args:
        measures: in the order written.
        use: what is done with a value.
    """

    measures: tuple[Active, ...]
    use: Literal["measure"] = "measure"

    @property
    def index(self) -> int:
        """A number that tells the groups of a step apart."""
        return self.measures[0].planned.index

    @cached_property
    def points(self) -> frozenset[str]:
        """What any of them reads."""
        return frozenset(touch.point for active in self.measures for touch in active.planned.touches)

    @property
    def around(self) -> bool:
        """Whether all that it reads stands before or after a block."""
        return self.points <= _AROUND["measure"]


@dataclass(frozen=True)
class Acting:
    """An operation that acts at a hook point.

    Args:
        active: the operation.
        point: the hook point.
        use: whether it writes the value, keeps it, or asks for its gradient.
    """

    active: Active
    point: str
    use: Literal["write", "keep", "gradient"]

    @property
    def around(self) -> bool:
        """Whether it reads alone, and what stands after a block."""
        return self.point in _AROUND[self.use]


Here = list[Acting | MeasureGroup]
"""What acts at a hook point, in the order written."""


@dataclass
class LayerProgram:
    """What happens at one place.

    Args:
        skips: part -> the operations that skip it.
        runs: (how often the block runs, rows).
        other_blocks: (index of the block, rows) to run in this place for some rows only.
        points: hook point -> what reads or writes there, in the order written.
        groups: measures fed at this place.
    """

    skips: dict[Part, list[Active]] = field(default_factory=dict)
    runs: list[tuple[int, Rows]] = field(default_factory=list)
    other_blocks: list[tuple[int, Rows]] = field(default_factory=list)
    points: dict[str, Here] = field(default_factory=dict)
    groups: list[MeasureGroup] = field(default_factory=list)

    def reads(self, point: str) -> bool:
        """Whether anything reads or writes a point."""
        return point in self.points

    @property
    def quiet(self) -> bool:
        """Whether the block runs as it is and is only read once it has."""
        if self.skips or self.runs or self.other_blocks:
            return False
        return all(acting.around for here in self.points.values() for acting in here)

    @property
    def in_kernel(self) -> bool:
        """Whether anything acts within the function that computes its attention."""
        return any(POINTS[point].kernel for point in self.points)

    def skipped_rows(self, batch: int) -> tuple[bool, ...] | None:
        """Per row whether the whole block is skipped; None where none is."""
        actives = self.skips.get("block")
        if not actives:
            return None
        return tuple(any(a.rows is None or a.rows[b] for a in actives) for b in range(batch))


@dataclass(frozen=True)
class StepProgram:
    """What happens at one step.

    Args:
        blocks: which block runs in each place.
        layers: place -> program, for the places where anything happens.
        root: point outside of blocks -> what reads or writes there.
        structural: the operations that change what is computed, with their rows: the signature for FLOPs.
        quiet: the places that are only read; the others are visited in the order of the forward.
    """

    blocks: tuple[int, ...]
    layers: dict[int, LayerProgram]
    root: dict[str, Here]
    structural: tuple[tuple[int, Rows], ...]
    quiet: frozenset[int]

"""Apply what acts at a hook point to its value, where rows, tokens and noise say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from dlens.axes import POINTS
from dlens.ops.base.edit import Edit, Place
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.hooks import Reader
from dlens.tracing.step.program import Acting, Active, MeasureGroup, Rows, Spot
from dlens.tracing.step.state import StepState, key_mask, step_mask
from dlens.tracing.step.tape import Tape

__all__ = ["Hand"]


@final
class Hand:
    """Applies the operations at a point to its value.

    Args:
        collector: receives captures, what measures read, and what fired.
        reader: reads the blocks that are not visited, and looks away meanwhile.
        tape: takes gradients.
    """

    def __init__(self, collector: Collector, reader: Reader, tape: Tape) -> None:
        self.collector = collector
        self.reader = reader
        self.tape = tape
        self._prompt_width = collector.shape.prompt_width
        self._flags: dict[tuple[bool, ...], Tensor] = {}

    def apply(self, acting: list[Acting | MeasureGroup], value: Tensor, spot: Spot) -> Tensor:
        """Apply what acts at a point, in the order written; what is returned goes on."""
        for one in acting:
            if one.use == "measure":
                self.collector.read(one, value, spot)
            elif one.use == "keep":
                self.collector.capture(one.active, value, spot)
            elif one.use == "gradient":
                value = self.tape.ask(one.active, value, spot)
            else:
                with self.collector.edits:
                    value = self._edit(one.active, value, spot)
        return value

    def flags(self, rows: tuple[bool, ...]) -> Tensor:
        """Per row a flag on the model's device; unlike ones are brought there once a run, as no recorded step can."""
        if rows not in self._flags:
            device, alike = self.collector.span.device, len(set(rows)) == 1
            flags = torch.full((len(rows),), rows[0], device=device) if alike else torch.tensor(rows, device=device)
            self._flags[rows] = flags
        return self._flags[rows]

    def column(self, rows: Rows, halves: int) -> Tensor:
        """A flag for each row that broadcasts over [batch, position, d_model]; one for all of them where all act."""
        return self.flags((rows or (True,)) * halves)[:, None, None]

    def _selected(self, active: Active, op: Edit, state: StepState) -> Tensor | None:
        """[batch, position] where an edit acts; None for everywhere."""
        mask = step_mask(op.tokens, active.planned.fixed, state)
        if active.rows is None:
            return mask
        rows = self.column(active.rows, 1)[..., 0]
        return rows.expand_as(state.real) if mask is None else mask & rows

    def _edit(self, active: Active, value: Tensor, spot: Spot) -> Tensor:
        op, state = active.op, spot.state
        assert isinstance(op, Edit)
        mask = self._selected(active, op, state)
        self.collector.fire(active, mask)
        with self.reader.away():
            new = op.edit(value, _place(spot))
        if new is value:
            return value
        for axes, where in self._limits(active, op, mask, value, spot):
            sizes = dict(zip(axes, where.shape, strict=True))
            where = where.to(value.device).reshape([sizes.get(axis, 1) for axis in POINTS[spot.point].axes])
            new = torch.where(where, new, value)
        return new

    def _limits(
        self, active: Active, op: Edit, mask: Tensor | None, value: Tensor, spot: Spot
    ) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        """Axes, and where along them an edit acts."""
        axes, state = POINTS[spot.point].axes, spot.state
        if mask is not None:
            yield ("batch", "position"), mask.repeat(state.halves, 1)
        if op.heads is not None:
            axis = POINTS[spot.point].head_axis
            assert axis is not None
            heads = torch.zeros(value.shape[axes.index(axis)], dtype=torch.bool)
            heads[list(op.heads)] = True
            yield (axis,), heads
        if "position_b" in axes:
            keys = key_mask(op.sources(), active.planned.fixed_sources, state, value.shape[-1], self._prompt_width)
            if keys is not None:
                yield ("batch", "position_b"), keys.repeat(state.halves, 1)


def _place(spot: Spot) -> Place:
    state, whole = spot.state, spot.state.whole or spot.state
    window = state.window
    own = None if window is None or window.span is not None else window.index + state.group.offset
    return Place(
        point=spot.point,
        layer=spot.layer,
        step=state.step,
        noise_now=lambda: None if state.noise is None else state.noise * state.halves,
        masked=state.masked.repeat(state.halves, 1),
        rows=state.group.rows,
        columns=state.full_columns,
        halves=state.halves,
        index=own,
        stop=whole.full_columns.stop,
    )

"""Receive what a run keeps: captured tensors, sums of measures, and which operations fired."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from dlens.measures.base.measure import Span, Sums, Visit
from dlens.measures.base.readout import Readout
from dlens.models.model import Model
from dlens.ops.capture import Capture
from dlens.ops.op import Target
from dlens.tracing.planning.captures import captured_dims, captured_layers
from dlens.tracing.planning.measured import Measured
from dlens.tracing.planning.plan import Plan
from dlens.tracing.planning.shape import RunShape
from dlens.tracing.records.captured import Captured
from dlens.tracing.step.program import Active, Rows, StepProgram, View
from dlens.tracing.step.slab import Slab
from dlens.tracing.step.state import StepState

__all__ = ["Collector"]


@final
@dataclass
class Collector:
    """Receives from the engine what a run keeps; one for all windows of a run."""

    model: Model
    target: Target
    plan: Plan
    shape: RunShape
    captured: dict[str, Captured] = field(default_factory=dict)
    sums: dict[int, Sums] = field(default_factory=dict)
    slabs: dict[int, Slab] = field(default_factory=dict)
    fired: set[int] = field(default_factory=set)
    structural: list[tuple[tuple[int, Rows], ...]] = field(default_factory=list)
    kept: dict[Any, Any] = field(default_factory=dict)
    readout: Readout | None = None

    def start(self) -> None:
        """Make empty sums before the run, so that a measure can refuse it."""
        for planned in self.plan.planned:
            if isinstance(planned.op, Measured):
                self.sums[planned.index] = planned.op.measure.start(self.span)

    def release(self) -> None:
        """Let go of what is needed only while the run lasts."""
        self.slabs.clear()
        self.kept.clear()

    @cached_property
    def span(self) -> Span:
        """What measures are told of the run."""
        return Span(
            n_steps=self.shape.n_steps,
            n_layers=self.target.n_layers,
            d_model=self.target.d_model,
            has_noise=self.target.has_noise,
            device=self.model.device,
        )

    def begin(self, state: StepState, program: StepProgram) -> None:
        """A step starts: note which operations change what it computes."""
        self.structural.append(program.structural)
        self.fired.update(index for index, _ in program.structural)

    def fire(self, active: Active, mask: Tensor | None) -> None:
        """An edit acts on the positions of `mask` (None: all); asked of the device only until it did once."""
        index = active.planned.index
        if index not in self.fired and (mask is None or bool(mask.any())):
            self.fired.add(index)

    def read(self, view: View, point: str, layer: int, value: Tensor, state: StepState) -> None:
        """A value that measures read; it is copied, as they are fed later."""
        slab = self.slabs.get(view.index)
        if slab is None or slab.view is not view:
            slab = self.slabs[view.index] = Slab(view, self.target.n_layers, self.span.device, self._update)
        slab.put(point, layer, value, state)

    def feed(self, view: View, skipped: Tensor | None) -> None:
        """A layer was read at every point of a view; its measures are fed with the last, or when memory is full."""
        self.slabs[view.index].close(skipped)

    def _update(self, view: View, visit: Visit) -> None:
        visit = replace(visit, kept=self.kept, readout=self.readout)
        for active in view.measures:
            op, index = active.op, active.planned.index
            assert isinstance(op, Measured)
            self.fired.add(index)
            op.measure.update(self.sums[index], visit)

    def capture(self, active: Active, value: Tensor, layer: int | None, state: StepState) -> None:
        """Copy a value into its place; the conditional half, and each AR position from its first step only."""
        op = active.op
        assert isinstance(op, Capture)
        self.fired.add(active.planned.index)
        value = value[: len(state.window.rows)]
        kept = self.captured.get(op.key) or self._allocate(active, op, value)
        skip = max(0, state.fresh - state.columns.start)
        columns = slice(state.full_columns.start + skip, state.full_columns.stop)
        index = self._index(kept, layer, state)
        whole = len(state.window.rows) == self.shape.batch
        rows = slice(None) if whole else list(state.window.rows)
        target = kept.values[index]
        if op.point == "pattern":
            keys = slice(state.full_columns.stop - value.shape[-1], state.full_columns.stop)
            target[rows, :, columns, keys] = value[:, :, skip:].to("cpu")
        else:
            target[rows, columns] = value[:, skip:].to("cpu")

    def _index(self, kept: Captured, layer: int | None, state: StepState) -> tuple[int, ...]:
        index: tuple[int, ...] = ()
        if "step" in kept.dims:
            index += (kept.steps.index(state.step),)
        if "layer" in kept.dims:
            assert layer is not None
            index += (kept.layers.index(layer),)
        return index

    def _allocate(self, active: Active, op: Capture, value: Tensor) -> Captured:
        dims = captured_dims(op, self.shape.kind)
        layers, steps = captured_layers(op, self.target), tuple(sorted(active.planned.steps))
        sizes = {
            "step": len(steps),
            "layer": len(layers),
            "batch": self.shape.batch,
            "position": self.shape.width,
            "position_b": self.shape.width,
            "head": value.shape[1],
        }
        size = [sizes.get(dim, value.shape[-1]) for dim in dims]
        values = torch.zeros(math.prod(size), dtype=value.dtype).reshape(size)
        self.captured[op.key] = Captured(
            values=values,
            dims=dims,
            layers=layers,
            steps=steps,
            positions=tuple(range(self.shape.width)),
        )
        return self.captured[op.key]

"""Receive what a run keeps: captured tensors, sums of measures, and which operations fired."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import POINTS
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.readout import Readout
from dlens.models.model import Model
from dlens.ops.base.keep import Keep
from dlens.ops.base.target import RunShape, Target
from dlens.ops.capture import Capture
from dlens.tracing.planning.captures import captured_dims
from dlens.tracing.planning.measured import measures_of
from dlens.tracing.planning.plan import Plan
from dlens.tracing.records.captured import Captured
from dlens.tracing.step.gather import Gather
from dlens.tracing.step.program import Active, MeasureGroup, Rows, Spot, StepProgram
from dlens.tracing.step.slab import Slab
from dlens.tracing.step.state import StepState, step_mask

__all__ = ["Collector"]


@final
@dataclass
class Collector:
    """Receives from the engine what a run keeps; one for all groups of a run.

    With `gather` captures go to a stream, and not into the record. With `told` whoever drives the run writes into
    `fired` which edits act, and the device is not asked. `ran` is the outline of the model as it ran the
    only one of `groups`.
    """

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
    gradients: dict[str, Captured] = field(default_factory=dict)
    metric: Float[Tensor, "step batch"] | None = None
    gather: Gather | None = None
    edits: AbstractContextManager[Any] = field(default_factory=nullcontext)
    told: bool = False
    ran: int | None = None
    groups: int = 0

    def start(self) -> None:
        """Make empty sums before the run, so that a measure can refuse it."""
        self.sums = {index: measure.start(self.span) for index, measure in self.measures.items()}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Copy what measures read into memory of its own, which a recording keeps."""
        before = self.slabs, self.kept
        self.slabs, self.kept = {}, {}
        try:
            yield
        finally:
            self.slabs, self.kept = before

    @contextmanager
    def around_edits(self, context: AbstractContextManager[Any]) -> Iterator[None]:
        """Apply each edit meanwhile within a context, which is entered again and again."""
        before, self.edits = self.edits, context
        try:
            yield
        finally:
            self.edits = before

    def release(self) -> None:
        """Let go of what is needed only while the run lasts."""
        self.slabs.clear()
        self.kept.clear()

    @cached_property
    def measures(self) -> dict[int, Measure]:
        """Position in the chain -> measure."""
        return measures_of(self.plan)

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

    def begin(self, state: StepState, program: StepProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A step starts: note which operations change what it computes.

        Args:
            args, kwargs: what the module is called with.
        """
        if self.gather is not None:
            self.gather.begin(state, kwargs["input_ids"] if "input_ids" in kwargs else args[0])
        self.structural.append(program.structural)
        self.fired.update(index for index, _ in program.structural)

    def fire(self, active: Active, mask: Tensor | None) -> None:
        """An edit acts on the positions of `mask` (None: all); asked of the device only until it did once."""
        index = active.planned.index
        if not self.told and index not in self.fired and (mask is None or bool(mask.any())):
            self.fired.add(index)

    def read(self, group: MeasureGroup, value: Tensor, spot: Spot) -> None:
        """A value that measures read; it is copied, as they are fed later."""
        slab = self.slabs.get(group.index)
        if slab is None or slab.group is not group:
            slab = self.slabs[group.index] = Slab(group, self.target.n_layers, self.span.device, self._update)
        # A detached tensor is another one, and a slab tells by identity what left the last block.
        slab.put(value.detach() if value.requires_grad else value, spot)

    def feed(self, group: MeasureGroup, skipped: Tensor | None) -> None:
        """A layer was read at every point of a group; its measures are fed with the last, or when memory is full."""
        self.slabs[group.index].close(skipped)

    def _update(self, group: MeasureGroup, visit: Visit) -> None:
        visit = replace(visit, kept=self.kept, readout=self.readout)
        for active in group.measures:
            index = active.planned.index
            self.fired.add(index)
            self.measures[index].update(self.sums[index], visit)

    def capture(self, active: Active, value: Tensor, spot: Spot) -> None:
        """Copy a value into its place; the conditional half, and each AR position from its first step only."""
        self.fired.add(active.planned.index)
        op = active.op
        assert isinstance(op, Capture)
        if self.gather is not None:
            self.gather.take(op, value, spot)
            return
        value = value.detach() if op.dtype is None else value.detach().to(op.dtype)
        chosen = step_mask(op.tokens, active.planned.fixed, spot.state)
        if chosen is not None:
            sizes: dict[str, int] = dict(zip(("batch", "position"), chosen.shape, strict=True))
            there = chosen.to(value.device).reshape([sizes.get(axis, 1) for axis in POINTS[op.point].axes])
            value = torch.where(there, value[: len(chosen)], torch.nan)
        self._keep(self.captured, active, value, spot)

    def differentiated(self, active: Active, gradient: Tensor, spot: Spot) -> None:
        """Copy a gradient into its place, as a captured value."""
        self.fired.add(active.planned.index)
        self._keep(self.gradients, active, gradient, spot)

    def measured(self, metric: Float[Tensor, " batch"], state: StepState) -> None:
        """Note the metric of a step's rows."""
        if self.metric is None:
            self.metric = torch.full((self.shape.n_steps, self.shape.batch), torch.nan, dtype=metric.dtype)
        self.metric[state.step, list(state.group.rows)] = metric.to("cpu")

    def _keep(self, into: dict[str, Captured], active: Active, value: Tensor, spot: Spot) -> None:
        op, state = active.op, spot.state
        assert isinstance(op, Keep)
        value = value.detach()[: len(state.group.rows)]
        axes = POINTS[op.point].axes
        if state.window is not None and state.whole is not None:
            value = state.window.spread(value, axes.index("position"), fill=torch.nan)
            state = state.whole
        kept = into.get(op.key) or self._allocate(into, active, op, value)
        skip = max(0, state.fresh - state.columns.start)
        there = self._region(state, skip, value.shape[-1])
        fresh = value.narrow(axes.index("position"), skip, value.shape[axes.index("position")] - skip)
        target = kept.values[self._index(kept, spot.layer, state)]
        target[tuple(there.get(axis, slice(None)) for axis in axes)] = fresh.to("cpu")

    def _region(self, state: StepState, skip: int, n_keys: int) -> dict[str, Any]:
        """Axis -> the rows and columns of the whole batch that a value covers, the first `skip` columns left out."""
        whole = len(state.group.rows) == self.shape.batch
        columns = state.full_columns
        return {
            "batch": slice(None) if whole else list(state.group.rows),
            "position": slice(columns.start + skip, columns.stop),
            "position_b": slice(columns.stop - n_keys, columns.stop),
        }

    def _index(self, kept: Captured, layer: int | None, state: StepState) -> tuple[int, ...]:
        index: tuple[int, ...] = ()
        if "step" in kept.dims:
            index += (kept.steps.index(state.step),)
        if "layer" in kept.dims:
            assert layer is not None
            index += (kept.layers.index(layer),)
        return index

    def _allocate(self, into: dict[str, Captured], active: Active, op: Keep, value: Tensor) -> Captured:
        dims = captured_dims(op, self.shape.kind)
        layers, steps = op.places(self.target), tuple(sorted(active.planned.steps))
        sizes = dict(zip(POINTS[op.point].axes, value.shape, strict=True)) | {
            "step": len(steps),
            "layer": len(layers),
            "batch": self.shape.batch,
            "position": self.shape.width,
            "position_b": self.shape.width,
        }
        size = [sizes[dim] for dim in dims]
        values = torch.zeros(math.prod(size), dtype=value.dtype).reshape(size)
        kept = into[op.key] = Captured(
            values=values,
            dims=dims,
            layers=layers,
            steps=steps,
            positions=tuple(range(self.shape.width)),
        )
        return kept

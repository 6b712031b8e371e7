"""Play recorded steps again: on a GPU a step of one row takes longer to launch than to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.measures.base.measure import Sums
from dlens.models.identity import parts_of
from dlens.models.model import Model
from dlens.ops.base.edit import Edit
from dlens.ops.base.op import Op
from dlens.tracing.planning.plan import Plan
from dlens.tracing.replay.recorder import Constants, Recorder, Recording
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.compile import active_at, compile_step
from dlens.tracing.step.program import Active, Rows
from dlens.tracing.step.state import StepState

__all__ = ["LEAST_STEPS", "NotRecorded", "ReplayPolicy", "Replays", "obstacle", "replay_notes"]

ReplayPolicy = Literal["auto", "require", "off"]

# Below, recording costs more than it saves: of a run, and of those that a recording could play.
LEAST_STEPS = 6
LEAST_PLAYS = 4
# Of all blocks, before which a recording is cut. To record a block takes twice as long as to compute it: what the first
# half leaves to compute is over soon, and of the last part there is little.
_CUTS = (0.5, 0.8, 0.95)

Kind = tuple[int, tuple[tuple[int, Rows], ...]]
"""Halves, and the operations that act with their rows: what steps have in common that can share a recording."""


class NotRecorded(RuntimeError):
    """A step asked something of the device that had to be waited for, or could not be recorded otherwise."""


@dataclass(frozen=True)
class _Recorded:
    """A recorded step.

    Args:
        recording: of its forward.
        ids: the canvas that it reads.
        number: of the step whose sums it adds to.
        structural: what is noted of each such step.
        constants: the memory that it reads, which is to stand as long as it is played.
    """

    recording: Recording
    ids: Tensor
    number: Int[Tensor, " one"]
    structural: list[tuple[tuple[int, Rows], ...]]
    constants: Constants


@final
@dataclass
class Replays:
    """Computes the steps of a run, each as the last of its kind was recorded.

    Args:
        recorder: makes recordings.
        plan: operations of the run.
        collector: what the run keeps.
        forward: compute a step from its canvas, as it is.
        state: what is known of the step that is being computed.
        rehearsed: what steps were recorded before on this model, in any run: the like find their kernels without being
            computed first.
        all_copies: whether the model too copies numbers from the processor's memory, and not the edits alone; to note
            those takes longer.
        played: how many steps were played.
    """

    recorder: Recorder
    plan: Plan
    collector: Collector
    forward: Callable[[Tensor], Tensor]
    state: Callable[[], StepState]
    rehearsed: set[Any] = field(default_factory=set)
    all_copies: bool = False
    played: int = 0
    _recorded: dict[Kind, _Recorded] = field(default_factory=dict)
    _seen: set[Kind] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._actives: tuple[Active, ...] | None = None
        self._by_noise = any(planned.op.scope.noise is not None for planned in self.plan.planned)
        self._blocks, self._target = tuple(self.collector.model.blocks), self.collector.target
        self._by_step = list(_by_step(self.collector))

    def __call__(self, ids: Tensor, step: int, halves: int) -> Tensor:
        """The logits of a step; the next play writes over them."""
        kind = halves, self._acting(step)
        if kind in self._recorded:
            return self._play(self._recorded[kind], ids, step)
        if self._known(kind, ids) and self._pays(kind, step):
            known = self._recorded[kind] = self._record(kind, Constants(), ids, step, at_once=True)
            return self._told(known)
        # The step finds kernels and memory, and what is copied from the processor's memory is noted.
        constants = Constants()
        with self.collector.around_edits(nullcontext() if self.all_copies else constants):
            with constants if self.all_copies else nullcontext():
                logits = self.forward(ids)
            if self._can(kind) and self._acted(kind) and self._pays(kind, step):
                # While the device computes the step.
                self._recorded[kind] = self._record(kind, constants, ids, step, at_once=False)
        self._seen.add(kind)
        return logits

    def over(self) -> None:
        """The run is over: another one records anew."""
        self._recorded.clear()

    def actives(self, state: StepState) -> tuple[Active, ...]:
        """What acts at the step that is being computed; known before it is recorded."""
        return active_at(self.plan, state) if self._actives is None else self._actives

    def _acting(self, step: int) -> tuple[tuple[int, Rows], ...]:
        if not self._by_noise:
            return self._planned(step)
        self._actives = active_at(self.plan, self.state())
        return tuple((active.planned.index, active.rows) for active in self._actives)

    def _planned(self, step: int) -> tuple[tuple[int, Rows], ...]:
        return tuple((planned.index, None) for planned in self.plan.planned if step in planned.steps)

    def _pays(self, kind: Kind, step: int) -> bool:
        """Whether enough steps of a kind follow; where no plan says so, what came twice is taken to come again."""
        if self._by_noise or step >= self.plan.n_steps:
            return kind in self._seen
        return sum(self._planned(later) == kind[1] for later in range(step + 1, self.plan.n_steps)) >= LEAST_PLAYS

    def _can(self, kind: Kind) -> bool:
        """Whether all that acts at a step knows how to be played."""
        return all(op.replays for op in self._ops(kind))

    def _acted(self, kind: Kind) -> bool:
        """Whether all of it has acted in this run: a played step notes nothing of the kind."""
        return {index for index, _ in kind[1]} <= self.collector.fired

    def _known(self, kind: Kind, ids: Tensor) -> bool:
        """Whether a step can be recorded before any like it was computed: edits alone copy what has to be noted."""
        edits = any(isinstance(op, Edit) for op in self._ops(kind))
        return not edits and not self.all_copies and self._can(kind) and self._rehearsal(kind, ids) in self.rehearsed

    def _rehearsal(self, kind: Kind, ids: Tensor) -> Any:
        """What steps of any run have in common that need the same kernels."""
        return kind[0], tuple(ids.shape), tuple(op.words() for op in self._ops(kind))

    def _ops(self, kind: Kind) -> list[Op]:
        acting = {index for index, _ in kind[1]}
        return [planned.op for planned in self.plan.planned if planned.index in acting]

    def _record(self, kind: Kind, constants: Constants, ids: Tensor, step: int, at_once: bool) -> _Recorded:
        own, number, before = ids.clone(), torch.full((1,), step, device=ids.device), len(self.collector.structural)
        rehearsal = self._rehearsal(kind, ids)
        try:
            noted = constants if self.all_copies else nullcontext()
            cutting = self._cutting(kind) if at_once else nullcontext()
            with self.collector.apart(), constants.given(), noted, cutting:
                recording = self.recorder.record(lambda: self._anywhere(own, number, step), at_once)
        except Exception as error:
            self.rehearsed.discard(rehearsal)
            raise NotRecorded(": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])) from error
        if not self.all_copies:
            self.rehearsed.add(rehearsal)
        structural = self.collector.structural[before:]
        del self.collector.structural[before:]
        return _Recorded(recording, own, number, structural, constants)

    @contextmanager
    def _cutting(self, kind: Kind) -> Iterator[None]:
        """Cut what is recorded before some of the blocks that compute, so that no part is empty."""
        program = compile_step(tuple(Active(self.plan.planned[index], rows) for index, rows in kind[1]), self._target)
        skipped = {layer for layer, todo in program.layers.items() if "block" in todo.skips}
        ran = [block for layer, block in enumerate(program.blocks) if layer not in skipped]
        with ExitStack() as stack:
            for block in {ran[int(share * len(ran))] for share in _CUTS if ran}:
                hook = self._blocks[block].register_forward_pre_hook(lambda *given: self.recorder.cut())
                stack.callback(hook.remove)
            yield

    def _anywhere(self, ids: Tensor, number: Tensor, step: int) -> Tensor:
        """The logits of a step that adds to the sums of whichever step a number says."""
        before = self.collector.sums
        # Beyond the plan nothing acts, and nothing is measured.
        kept = self._by_step if step < self.collector.shape.n_steps else []
        aside = [torch.empty_like(one.sums) for one in kept]
        self.collector.sums = _replaced(before, kept, aside)
        here = [own.narrow(one.axis, step, 1) for one, own in zip(kept, aside, strict=True)]
        try:
            for one, own in zip(kept, here, strict=True):
                own.copy_(one.sums.index_select(one.axis, number))
            logits = self.forward(ids)
            for one, own in zip(kept, here, strict=True):
                one.sums.index_copy_(one.axis, number, own)
        finally:
            self.collector.sums = before
        return logits

    def _play(self, known: _Recorded, ids: Tensor, step: int) -> Tensor:
        known.ids.copy_(ids)
        if step < self.collector.shape.n_steps:
            known.number.fill_(step)
        known.recording.play()
        return self._told(known)

    def _told(self, known: _Recorded) -> Tensor:
        """A step was computed from its recording."""
        self.collector.structural += known.structural
        self.played += 1
        return known.recording.found


@dataclass(frozen=True)
class _ByStep:
    """Sums that a measure keeps by step.

    Args:
        index: of the measure in the plan.
        key: their name.
        sums: of all steps.
        axis: along which steps lie.
    """

    index: int
    key: str
    sums: Tensor
    axis: int


def _by_step(collector: Collector) -> Iterator[_ByStep]:
    """The sums that are kept by step, each with the axis of steps: the one that grows with the run."""
    span = collector.span
    for index, measure in collector.measures.items():
        if not measure.replays:
            continue
        longer = measure.start(replace(span, n_steps=span.n_steps + 1, device=torch.device("meta")))
        for key, sums in collector.sums[index].items():
            for axis, (size, other) in enumerate(zip(sums.shape, longer[key].shape, strict=True)):
                if size != other:
                    yield _ByStep(index, key, sums, axis)
                    break


def _replaced(sums: dict[int, Sums], kept: list[_ByStep], others: list[Tensor]) -> dict[int, Sums]:
    """All sums, with others in the place of those that are kept by step."""
    found = {index: dict(own) for index, own in sums.items()}
    for one, other in zip(kept, others, strict=True):
        found[one.index][one.key] = other
    return found


def obstacle(model: Model, plan: Plan, n_steps: int, recorder: Recorder | None, policy: ReplayPolicy) -> str:
    """Why no step of a run is played, in words; empty where steps can be.

    Where they are required, every operation has to be one that can.
    """
    eager = _eager(plan)
    if recorder is None:
        return f"it is on a {model.device.type} device, and steps are recorded on CUDA alone"
    weights = (weight for part in parts_of(model.module) for weight in part._parameters.values())
    if len({weight.device for weight in weights if weight is not None}) > 1:
        return "the weights are on several devices"
    if n_steps < LEAST_STEPS:
        return f"{n_steps} steps are too few for a recording to pay"
    return f"'{eager[0].words()}' needs its steps one by one" if eager and policy == "require" else ""


def _eager(plan: Plan) -> list[Op]:
    """The operations at whose steps nothing can be played."""
    return [planned.op for planned in plan.planned if not planned.op.replays]


def replay_notes(played: int, steps: int, plan: Plan, why: str = "") -> tuple[str, ...]:
    """The notes of a record on which steps were played, and why others were not; `why` none was."""
    if why:
        return (f"steps were computed one by one, as {why}",)
    ops = _eager(plan)
    why = f"; steps with '{ops[0].words()}' are computed one by one" if ops else ""
    return (f"{played} of {steps} steps were played from a recording{why}",)

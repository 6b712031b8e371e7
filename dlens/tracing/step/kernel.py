"""What acts within the attention of a block: called by the forward itself when it gets there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import final

from torch import Tensor

from dlens.axes import POINTS
from dlens.models.attention import Kernels
from dlens.models.model import Model
from dlens.tracing.planning.plan import Plan
from dlens.tracing.step.hand import Hand
from dlens.tracing.step.program import LayerProgram, Spot, StepProgram
from dlens.tracing.step.state import StepState

__all__ = ["KernelWalk"]


@final
class KernelWalk:
    """Applies what acts at rotated queries and keys, scores and patterns; told by the engine when a step starts.

    Args:
        model: whose blocks.
        plan: operations of the run.
        hand: applies what acts at a point.
    """

    def __init__(self, model: Model, plan: Plan, hand: Hand) -> None:
        self._hand = hand
        self._wanted = any(plan.touches(name) for name, point in POINTS.items() if point.kernel)
        self._kernels = Kernels(model, self._visit)
        self._places: dict[int, tuple[int, LayerProgram]] = {}
        self._state: StepState | None = None

    def opened(self) -> AbstractContextManager[None]:
        """Stay ready as long as a run lasts; nothing where no operation asks for it."""
        return self._kernels.open() if self._wanted else nullcontext()

    def begin(self, state: StepState, program: StepProgram) -> None:
        """A step starts: take over the attention of the blocks where anything acts within it."""
        if not self._wanted:
            return
        inside = {layer: todo for layer, todo in program.layers.items() if todo.in_kernel}
        self._places = {program.blocks[layer]: (layer, todo) for layer, todo in inside.items()}
        self._state = state
        self._kernels.choose(self._places.keys())

    def _visit(self, block: int, point: str, value: Tensor) -> Tensor:
        assert self._state is not None
        layer, todo = self._places[block]
        return self._hand.apply(todo.points.get(point, []), value, Spot(point, layer, self._state))

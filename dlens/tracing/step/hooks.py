"""Feed measures and captures at blocks where a step changes nothing, from hooks of PyTorch.

A visit through nnsight hands control to the worker and back, which costs as much as launching half a
block; a place that is only read needs none of it, as no order has to be kept there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, final

from torch import nn

from dlens.models.family import hidden_in, hidden_of
from dlens.models.model import Model
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.program import LayerProgram, Spot, StepProgram, around_blocks
from dlens.tracing.step.state import StepState

__all__ = ["Reader"]


@final
class Reader:
    """Reads every block of one run as it starts and ends; told by the engine when a step starts."""

    def __init__(self, model: Model, collector: Collector) -> None:
        self._blocks = tuple(model.blocks)
        self._wanted = any(around_blocks(planned) for planned in collector.plan.planned)
        self._collector = collector
        self._now: tuple[StepState, dict[int, tuple[int, LayerProgram]]] | None = None
        self._away = False

    def begin(self, state: StepState, program: StepProgram) -> None:
        """A step starts."""
        places = {program.blocks[layer]: (layer, program.layers[layer]) for layer in program.quiet}
        self._now = state, places

    @contextmanager
    def away(self) -> Iterator[None]:
        """Read nothing while an operation is applied, as a user's hook may call a block."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Keep the hooks on the blocks as long as a run lasts."""
        with ExitStack() as stack:
            for index, block in enumerate(self._blocks if self._wanted else ()):
                handles = (
                    block.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True),
                    block.register_forward_hook(partial(self._leave, index)),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            yield

    def _enter(self, index: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._now is None or self._away or index not in self._now[1]:
            return
        state, places = self._now
        layer, todo = places[index]
        for group in todo.groups:
            if "resid_pre" in group.points:
                self._collector.read(group, hidden_in(args, kwargs), Spot("resid_pre", layer, state))

    def _leave(self, index: int, block: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        if self._now is None or self._away or index not in self._now[1]:
            return
        state, places = self._now
        layer, todo = places.pop(index)
        post, spot = hidden_of(returned), Spot("resid_post", layer, state)
        for acting in todo.points.get("resid_post", ()):
            if acting.use == "measure":
                self._collector.read(acting, post, spot)
            else:
                self._collector.capture(acting.active, post, spot)
        for group in todo.groups:
            self._collector.feed(group, None)

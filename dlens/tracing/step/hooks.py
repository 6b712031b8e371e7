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
from dlens.tracing.step.program import LayerProgram, StepProgram, View, reads_block
from dlens.tracing.step.state import StepState

__all__ = ["Reader"]


@final
class Reader:
    """Reads every block of one run as it starts and ends; told by the engine when a step starts."""

    def __init__(self, model: Model, collector: Collector) -> None:
        self._blocks = tuple(model.blocks)
        self._wanted = any(reads_block(planned.op) for planned in collector.plan.planned)
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
        for view in todo.views:
            if "resid_pre" in view.points:
                self._collector.read(view, "resid_pre", layer, hidden_in(args, kwargs), state)

    def _leave(self, index: int, block: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        if self._now is None or self._away or index not in self._now[1]:
            return
        state, places = self._now
        layer, todo = places.pop(index)
        post = hidden_of(returned)
        for active in todo.points.get("resid_post", ()):
            if isinstance(active, View):
                self._collector.read(active, "resid_post", layer, post, state)
            else:
                self._collector.capture(active, post, layer, state)
        for view in todo.views:
            self._collector.feed(view, None)

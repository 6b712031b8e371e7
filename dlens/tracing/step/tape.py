"""Gradients of one step: which values are asked for, and the backward pass when its logits are there.

The graph begins at the first value asked for, as the weights want no gradients while a run lasts, and
ends with the step: what a sampler or a cache gets is cut off from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.axes import Logits, TokenIds
from dlens.metrics import Metric, MetricStep
from dlens.models.model import Model
from dlens.ops.gradient import Gradient
from dlens.tracing.planning.alignment import aligned
from dlens.tracing.planning.plan import Plan
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.program import Active, Spot
from dlens.tracing.step.state import StepState

__all__ = ["Tape", "cut", "metric_of"]


@final
@dataclass
class Tape:
    """Takes gradients of a run, step by step.

    Args:
        model: what runs.
        plan: its operations.
        collector: receives the gradients and the metric.
    """

    model: Model
    plan: Plan
    collector: Collector
    metric: Metric | None = None
    _asked: list[tuple[Active, Tensor, Spot]] = field(default_factory=list)
    _ids: TokenIds | None = None

    def __post_init__(self) -> None:
        self.metric = metric_of(self.plan)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let the model's own forward, and it alone, keep what gradients need; the weights ask for none meanwhile."""
        if self.metric is None:
            yield
            return
        module, mode = self.model.module, torch.is_grad_enabled()
        wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
        handles = (
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        )
        try:
            for parameter in wanting:
                parameter.requires_grad_(False)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in wanting:
                parameter.requires_grad_(True)
            torch.set_grad_enabled(mode)
            self._asked.clear()

    def _enter(self, module: nn.Module, args: Any) -> None:
        torch.set_grad_enabled(True)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        torch.set_grad_enabled(False)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A step starts: forget the last one's graph, and note the tokens that go in."""
        self._asked.clear()
        self._ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]

    def ask(self, active: Active, value: Tensor, spot: Spot) -> Tensor:
        """A value whose gradient is asked for; the forward must go on with what is returned."""
        value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        self._asked.append((active, value, spot))
        return value

    def close(self, logits: Logits, state: StepState) -> None:
        """The step's logits are there: take the gradients and let go of the graph."""
        if not self._asked:
            return
        assert self.metric is not None
        values = [value for _, value, _ in self._asked]
        with torch.enable_grad():
            metric = self._measured(logits, state)
            if metric.requires_grad:
                found = torch.autograd.grad(metric.sum(), values, allow_unused=True)
            else:
                found = [None] * len(values)
        self.collector.measured(metric.detach(), state)
        for (active, value, spot), gradient in zip(self._asked, found, strict=True):
            self.collector.differentiated(active, torch.zeros_like(value) if gradient is None else gradient, spot)
        self._asked.clear()

    def _measured(self, logits: Logits, state: StepState) -> Tensor:
        """The metric of each row; of the conditional half under guidance."""
        assert self.metric is not None and self._ids is not None
        rows = len(state.real)
        logits = logits[:rows]
        if state.has_noise:
            logits = aligned(logits, self.model.family.shift, state.real)
        ids = self._ids[:rows]
        step = MetricStep(state.step, ids, state.real, state.masked, state.noise)
        metric = self.metric(logits, step)
        if not isinstance(metric, Tensor) or metric.shape != (rows,):
            came = f"shape {tuple(metric.shape)}" if isinstance(metric, Tensor) else type(metric).__name__
            raise ValueError(
                f"the metric gave {came} at step {state.step}; expected [{rows}], one number a row; average over "
                f"positions, not over rows"
            )
        return metric


def metric_of(plan: Plan) -> Metric | None:
    """The metric that a run takes gradients of, if any.

    Raises:
        ValueError: there are two.
    """
    metrics = [planned.op.of for planned in plan.planned if isinstance(planned.op, Gradient)]
    if any(metric is not metrics[0] for metric in metrics):
        raise ValueError(
            "the trace takes gradients of two metrics; expected one, as a step has one backward pass; run it once "
            "for each"
        )
    return metrics[0] if metrics else None


def cut(output: Any) -> Any:
    """What a model returned, cut off from the graph: its logits, and the keys and values in its cache."""
    output.logits = output.logits.detach()
    for layer in getattr(getattr(output, "past_key_values", None), "layers", ()):
        for name in ("keys", "values"):
            if isinstance(held := vars(layer).get(name), Tensor):
                setattr(layer, name, held.detach())
    return output

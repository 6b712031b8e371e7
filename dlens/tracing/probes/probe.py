"""One small forward of dlens's own, beside the runs that users ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from dlens.axes import TokenIds
from dlens.models.model import Model
from dlens.ops.base.target import RunShape, Target
from dlens.tracing.engine import run_plan
from dlens.tracing.planning.plan import Plan
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.program import Active
from dlens.tracing.step.state import Group, forward_state
from dlens.tracing.step.window import Window

__all__ = ["probe"]


def probe(
    model: Model,
    target: Target,
    plan: Plan,
    ids: TokenIds,
    forward: Callable[[], Any] | None = None,
    halves: int = 1,
    actives: Sequence[Active] | None = None,
    window: Window | None = None,
) -> None:
    """Run the model once on token ids without padding or masks, with a plan of one step.

    Args:
        ids: [batch, position]; under guidance both halves.
        forward: calls the module on them; None gives it what its family does.
        halves: 2 under guidance.
        actives: what acts, and in which rows; None asks the scopes of the plan.
        window: what `forward` computes of them; None is all.
    """
    rows, width = len(ids) // halves, ids.shape[-1]
    real = torch.ones(rows, width, dtype=torch.bool, device=ids.device)
    state = forward_state(Group(tuple(range(rows)), 0), real, torch.zeros_like(real), target.has_noise)
    state = replace(state, halves=halves).within(window)
    collector = Collector(model, target, plan, RunShape("forward", 1, len(ids), width, width))
    run_plan(
        model,
        target,
        plan,
        collector,
        lambda *_: state,
        partial(model.module, **model.family.inputs(ids, None)) if forward is None else forward,
        None if actives is None else lambda _: tuple(actives),
    )

"""Forwards of many batches within one trace, their captures handed on: a batch costs what only it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from dlens.axes import TokenIds, TokenMask
from dlens.ops.base.edit import Edit
from dlens.tracing.engine import call_within
from dlens.tracing.planning.inputs import Batch
from dlens.tracing.prepare import Prepared
from dlens.tracing.step.compile import active_at
from dlens.tracing.step.gather import Gather
from dlens.tracing.step.program import Active
from dlens.tracing.step.state import Group, StepState, forward_state, step_mask

__all__ = ["Forwards", "run_forwards", "state_of"]


def run_forwards(prepared: Prepared, batches: Iterable[Batch]) -> int:
    """One forward of each batch.

    Args:
        prepared: the chain, checked for each of them; its collector hands captures on.
        batches: on the processor; each is asked for when the one before is over.

    Returns:
        In how many an operation found nothing to act on.

    Raises:
        RuntimeError: a function called by the run calls the module.
    """
    run = Forwards(prepared)
    return prepared.run(run.state, lambda: run.drive(batches), run.acting)


@final
@dataclass
class Forwards:
    """Forwards of many batches.

    What is known of a forward is worked out on the processor, where its prompts are, so that no forward waits for the
    device to answer.

    Args:
        prepared: see `run_forwards`.
    """

    prepared: Prepared
    _now: StepState | None = None
    _actives: tuple[Active, ...] = ()
    _begun: int = 0
    _visited: int = 0

    def drive(self, batches: Iterable[Batch]) -> int:
        """Call the module with each batch; see `run_forwards`."""
        module, collector = self.prepared.model.module, self.prepared.collector
        collector.told, idle = True, 0
        for batch in batches:
            module(**self._begin(batch))
            if self._visited < self._begun:
                raise call_within()
            idle += len(collector.fired) < len(self.prepared.plan.planned)
        return idle

    def state(self, step: int, args: Sequence[Any], kwargs: dict[str, Any]) -> StepState:
        """What is known of the forward that starts."""
        if self._now is None or self._visited == self._begun:
            raise call_within()
        self._visited += 1
        return self._now

    def acting(self, state: StepState) -> tuple[Active, ...]:
        """The operations that act at the forward that starts."""
        return self._actives

    def _begin(self, batch: Batch) -> dict[str, Any]:
        """Note what is known of a forward; what to call the module with."""
        model, collector, device = self.prepared.model, self.prepared.collector, self.prepared.model.device
        group, plan = Group(tuple(range(len(batch.ids))), 0), self.prepared.plan.of(batch.real)
        here = state_of(self.prepared, group, batch.ids, batch.real)
        actives = active_at(plan, here)
        collector.fired = {active.planned.index for active in actives if _acts(active, here)}
        assert isinstance(collector.gather, Gather)
        collector.gather.know(here, batch.ids)
        there = batch.to(device)
        self._now, self._actives, self._begun = here, actives, self._begun + 1
        if there is not batch:
            self._now = state_of(self.prepared, group, there.ids, there.real)
            self._actives = active_at(plan.to(device), here)
        return model.family.inputs(there.ids, there.real if batch.padded else None)


def state_of(prepared: Prepared, group: Group, ids: TokenIds, real: TokenMask) -> StepState:
    """What is known of a forward, where its prompts are."""
    has_noise, mask = prepared.target.has_noise, prepared.model.family.mask_token_id
    masked = ids == mask if has_noise else torch.zeros_like(real)
    return forward_state(group, real, masked, has_noise)


def _acts(active: Active, state: StepState) -> bool:
    """Whether an edit has a position to act on; what is no edit says so by itself."""
    if not isinstance(active.op, Edit):
        return False
    mask = step_mask(active.op.tokens, active.planned.fixed, state)
    if mask is None:
        return True
    return bool((mask if active.rows is None else mask[torch.tensor(active.rows)]).any())

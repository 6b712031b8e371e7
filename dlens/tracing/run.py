"""Run a chain of operations: one forward here, a generation as its kind of model decodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.tracing.decoding import run_decoding
from dlens.tracing.denoising import run_denoising
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.forwards import state_of
from dlens.tracing.planning.inputs import as_batch, refuse_too_long
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import Prepared, check_run, groups, prepare
from dlens.tracing.probes.flops import StepCost
from dlens.tracing.progress import hold
from dlens.tracing.records.finite import broken_forward, broken_notes
from dlens.tracing.records.record import Record
from dlens.tracing.settings import RunSettings, check_settings
from dlens.tracing.step.state import Group

__all__ = ["run_forward", "run_generation"]


def run_forward(
    model: Model,
    target: Target,
    ops: Sequence[Op],
    inputs: Any,
    capture_limit: int,
    batch_size: int | None = None,
) -> Record:
    """One forward over a batch of prompts, or a forward of every `batch_size` of them."""
    batch = as_batch(model, inputs)
    refuse_too_long(model, batch, 0)
    with hold(model.lock, None):
        shape = run_shape(model, batch)
        plan = check_run(model, target, ops, shape, batch.real, capture_limit)
        prepared = prepare(model, target, ops, shape, plan)
        start = time.perf_counter()
        parts = groups(model, batch, batch_size)
        costs, broken = zip(*(_forward_group(prepared, *group) for group in parts), strict=True)
        seconds = time.perf_counter() - start
    notes = broken_notes([torch.stack(broken).any()])
    return finish(prepared, batch, Outcome(batch.ids, 1, seconds, list(costs), list(costs), notes=notes))


def _forward_group(
    prepared: Prepared, group: Group, ids: TokenIds, real: TokenMask
) -> tuple[StepCost, Bool[Tensor, ""]]:
    model, state = prepared.model, state_of(prepared, group, ids, real)
    inputs = model.family.inputs(ids, None if bool(real.all()) else real)
    logits = prepared.run(lambda step, args, kwargs: state, lambda: model.module(**inputs).logits)
    return StepCost(len(ids), ids.shape[-1]), broken_forward(logits, real)


def run_generation(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: RunSettings) -> Record:
    """Decode a batch of prompts, each kind of model in its way.

    Raises:
        ValueError: the settings contradict the model or each other; before anything is computed.
    """
    check_settings(model, target, settings)
    run = run_denoising if target.has_noise else run_decoding
    return run(model, target, ops, prompts, settings)

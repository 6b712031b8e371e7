"""Write the record of a run that is over."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.errors import NeverFired, UnfiredWarning
from dlens.models.identity import outline
from dlens.ops.base.target import RunKind
from dlens.tracing.planning.inputs import Batch
from dlens.tracing.prepare import Prepared
from dlens.tracing.probes.flops import StepCost, count_steps
from dlens.tracing.records.captured import Captured
from dlens.tracing.records.record import Flops, Record, versions
from dlens.tracing.records.text import after_end, committed_at, continuations, end_ids, pieces

__all__ = ["Outcome", "finish"]


@dataclass(frozen=True)
class Outcome:
    """What a run gives beside what the collector holds.

    Args:
        tokens: [batch, position], prompts and what was decoded.
        n_steps: steps that ran.
        seconds: wall-clock time.
        costs: per step what decides its FLOPs, without the operations.
        plain_costs: the same for the run without operations.
        canvas: [step, batch, position] of a denoising run.
        settings: for the record.
        notes: for the record.
        row_steps: per row the steps that ran, where groups of rows ran different numbers of them.
        computed: [step, batch, position], what each step of a run with a cache computed.
    """

    tokens: TokenIds
    n_steps: int
    seconds: float
    costs: list[StepCost]
    plain_costs: list[StepCost]
    canvas: Int[Tensor, "step batch position"] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    row_steps: tuple[int, ...] = ()
    computed: Bool[Tensor, "step batch position"] | None = None


@dataclass(frozen=True)
class _Masks:
    """What each position of the finished tokens is: [batch, position]."""

    prompt: TokenMask
    generated: TokenMask
    pad: TokenMask


def finish(run: Prepared, batch: Batch, outcome: Outcome) -> Record:
    """The record of a run.

    Raises:
        NeverFired: an operation found nothing to act on although its steps ran.
    """
    late, never = _unfired(run, outcome.n_steps)
    record = _record(run, batch, outcome, late)
    run.collector.release()
    if never:
        raise NeverFired(
            f"'{never[0]}' found nothing to act on in {outcome.n_steps} steps; expected at least one position; check "
            f"noise= and tokens= against the run, which is in error.record",
            record,
            never,
        )
    if late:
        warnings.warn(
            f"the run ended after {outcome.n_steps} of {record.planned_steps} steps, before these acted: "
            f"{'; '.join(late)}",
            UnfiredWarning,
            stacklevel=4,
        )
    return record


def _unfired(run: Prepared, n_steps: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Operations that did not act: those whose steps never came, and the others."""
    late, never = [], []
    for planned in run.plan.planned:
        if planned.index not in run.collector.fired:
            words = run.ops[planned.index].words()
            (late if any(step >= n_steps for step in planned.steps) else never).append(words)
    return tuple(late), tuple(never)


def _record(run: Prepared, batch: Batch, outcome: Outcome, unfired: tuple[str, ...]) -> Record:
    shape, model = run.collector.shape, run.model
    tokens = outcome.tokens.cpu()
    masks = _masks(run, batch, outcome, tokens)
    measures = _measures(run)
    ran = outline(model.module) if run.collector.ran is None else run.collector.ran
    step_of_position = _steps_of_positions(shape.kind, shape.prompt_width, outcome.n_steps)

    def trimmed(kept: Mapping[str, Captured]) -> dict[str, Captured]:
        return {name: _trimmed(one, outcome, masks.pad, step_of_position) for name, one in kept.items()}

    return Record(
        kind=shape.kind,
        model=model.name,
        family=model.family.name,
        n_layers=run.target.n_layers,
        tokens=tokens,
        is_pad=masks.pad,
        is_prompt=masks.prompt,
        text=[] if shape.kind == "forward" else _text(run, tokens, masks),
        canvas=None if outcome.canvas is None else outcome.canvas.cpu(),
        computed=None if outcome.computed is None else outcome.computed.cpu(),
        committed_at=_committed(shape.kind, tokens, masks, outcome),
        step_of_position=step_of_position,
        n_steps=outcome.n_steps,
        planned_steps=shape.n_steps,
        captured=trimmed(run.collector.captured),
        differentiated=trimmed(run.collector.gradients),
        metric=_metric(run, outcome),
        measures=measures,
        plan=tuple({"words": op.words(), **op.to_json()} for op in run.ops),
        settings=outcome.settings,
        notes=outcome.notes,
        unfired=unfired,
        seconds=outcome.seconds,
        versions=versions(),
        count_flops=lambda: _count(run, outcome, ran),
        read_pieces=lambda: pieces(model, _ids(tokens, outcome, measures)),
    )


def _ids(tokens: TokenIds, outcome: Outcome, measures: Mapping[str, Any]) -> Tensor:
    """Every token id that a record holds; measures hold theirs as "token"."""
    held = [tokens, *([] if outcome.canvas is None else [outcome.canvas.cpu()])]
    held += [torch.tensor(data["token"].values) for data in measures.values() if "token" in data]
    return torch.cat([ids.flatten().unique().long() for ids in held])


def _masks(run: Prepared, batch: Batch, outcome: Outcome, tokens: TokenIds) -> _Masks:
    shape, model = run.collector.shape, run.model
    prompt = torch.zeros(tokens.shape, dtype=torch.bool)
    prompt[:, : shape.prompt_width] = batch.real.cpu()
    pad = torch.zeros_like(prompt)
    pad[:, : shape.prompt_width] = ~batch.real.cpu()
    generated = torch.zeros_like(prompt)
    if shape.kind == "decoding":
        generated[:, shape.prompt_width :] = True
        pad |= after_end(tokens, generated, end_ids(model))
    if outcome.canvas is not None:
        generated = (outcome.canvas[0].cpu() == model.family.mask_token_id) & ~pad
    return _Masks(prompt, generated, pad)


def _text(run: Prepared, tokens: TokenIds, masks: _Masks) -> list[str]:
    """The continuations; where prompts were filled in, whole rows."""
    shown = ~masks.pad
    if not bool((masks.prompt & masks.generated).any()):
        shown &= ~masks.prompt
    return continuations(run.model, tokens, masks.generated, shown)


def _steps_of_positions(kind: RunKind, prompt_width: int, n_steps: int) -> Tensor | None:
    if kind != "decoding":
        return None
    return torch.tensor([0] * prompt_width + list(range(1, n_steps)))


def _committed(kind: RunKind, tokens: TokenIds, masks: _Masks, outcome: Outcome) -> TokenIds:
    if outcome.canvas is not None:
        return committed_at(outcome.canvas.cpu(), tokens)
    committed = torch.full_like(tokens, -1)
    if kind == "decoding":
        steps = masks.generated.long().cumsum(-1) - 1
        committed = torch.where(masks.generated & ~masks.pad, steps, committed)
    return committed


def _trimmed(kept: Captured, outcome: Outcome, is_pad: TokenMask, step_of_position: Tensor | None) -> Captured:
    """Only the steps and positions that were computed, with padding set to zero."""
    values = kept.values
    steps, positions = kept.steps, kept.positions
    if "step" in kept.dims:
        steps = tuple(step for step in steps if step < outcome.n_steps)
        values = values[: len(steps)]
        for row, ran in enumerate(outcome.row_steps):
            late = [number for number, step in enumerate(steps) if step >= ran]
            values.select(kept.dims.index("batch"), row)[late] = torch.nan
    if step_of_position is not None:
        positions = tuple(p for p, step in enumerate(step_of_position.tolist()) if step in kept.steps)
        values = values.index_select(kept.dims.index("position"), torch.tensor(positions, dtype=torch.long))
        steps = ()
    asked = tuple(position for position in positions if position < is_pad.shape[-1])
    if len(asked) < len(positions):
        # What made the last canvas block of a row whole is cut.
        values, positions = values.narrow(kept.dims.index("position"), 0, len(asked)), asked
    if "position_b" in kept.dims:
        values = values[..., : is_pad.shape[-1]]
    hidden = is_pad[:, list(positions)]
    index = [hidden.shape[0] if d == "batch" else hidden.shape[1] if d == "position" else 1 for d in kept.dims]
    if bool(hidden.any()):
        values = values.masked_fill_(hidden.reshape(index), 0)
    return replace(kept, values=values, steps=steps if "step" in kept.dims else (), positions=positions)


def _metric(run: Prepared, outcome: Outcome) -> Tensor | None:
    """What gradients are of, at the steps that ran."""
    metric = run.collector.metric
    if metric is None:
        return None
    return metric[0] if run.collector.shape.kind == "forward" else metric[: outcome.n_steps]


def _measures(run: Prepared) -> dict[str, Any]:
    results = {}
    for index, measure in run.collector.measures.items():
        results[measure.key] = measure.result(run.collector.sums[index], run.collector.span)
    return results


def _count(run: Prepared, outcome: Outcome, ran: int) -> Flops:
    """Both counts of a run.

    Raises:
        ValueError: the model is not the one that ran.
    """
    if outline(run.model.module) != ran:
        raise ValueError(
            f"{run.model.name} was changed after this run (its parts, their sizes or settings); expected it as it ran, "
            f"as its operations are counted when first asked for; read record.flops before changing the model, or "
            f"run the trace again"
        )
    ops = [planned.op for planned in run.plan.planned]
    acting = run.collector.structural or [()] * len(outcome.costs)
    costs = [replace(cost, structural=structural) for cost, structural in zip(outcome.costs, acting, strict=True)]
    return Flops(
        run=count_steps(run.model, run.target, ops, costs),
        plain=count_steps(run.model, run.target, ops, outcome.plain_costs),
    )

"""A denoising run, whole: from prompts to a record, in groups of rows that run together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.samplers.sampler import Denoiser, Tokens
from dlens.tracing.denoising_run import Decoded, DenoisingRun
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.planning.inputs import Batch, as_batch, refuse_masks, refuse_too_long
from dlens.tracing.planning.kv_cache import canvas_cache
from dlens.tracing.planning.plan import Plan
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import Prepared, check_run, groups, prepare
from dlens.tracing.progress import hold
from dlens.tracing.records.finite import broken_notes
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import MASK_SIGN, drafts, end_ids
from dlens.tracing.replay.recorder import recorder_for
from dlens.tracing.replay.replays import NotRecorded, ReplayPolicy, Replays, obstacle, replay_notes
from dlens.tracing.settings import RunSettings, watch_of

__all__ = ["run_denoising"]

T = TypeVar("T")

# Libraries add up a product's last rows in another order where fewer are left.
_TILE = 4


def run_denoising(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: RunSettings) -> Record:
    """Decode a batch of prompts with a diffusion model."""
    sampler, mask = settings.sampler, model.family.mask_token_id
    assert isinstance(sampler, Denoiser) and mask is not None
    batch = as_batch(model, prompts)
    beyond = _beyond(model, sampler, batch, settings.new_tokens)
    refuse_too_long(model, batch, settings.new_tokens + max(beyond))
    if not settings.infill:
        refuse_masks(model, batch)
    asked = batch.ids.shape[-1] + settings.new_tokens
    canvas = _canvas(batch, settings.new_tokens + max(beyond) + _spare(model, batch, settings.new_tokens, beyond), mask)
    generated = (canvas.ids == mask) & canvas.real
    for row, more in enumerate(beyond):
        generated[row, asked + more :] = False
    if not bool(generated.any()):
        raise ValueError(
            "max_new_tokens=0 and no mask in any prompt; expected something to fill; ask for new tokens, or put masks "
            "into a prompt"
        )
    width = canvas.ids.shape[-1]
    shape = replace(run_shape(model, batch, settings.new_tokens, sampler), width=width, filler=width - asked)
    ends = tuple(i for i in end_ids(model) if i != model.eos_token_id)
    tokens = Tokens(mask, model.eos_token_id, ends)
    watch = watch_of(shape.n_steps, settings, lambda ids: drafts(model, ids[:, :asked], batch.ids.shape[-1]))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, canvas.real, settings.capture_limit)
        cache, cache_notes = canvas_cache(model, plan, settings.cache)
        start = time.perf_counter()

        def attempt(replay: ReplayPolicy, all_copies: bool = False) -> tuple[Prepared, list[Decoded]]:
            prepared = prepare(model, target, ops, shape, plan, settings.gather)
            runs: list[Decoded] = []
            for group, ids, real in groups(model, canvas):
                own = generated[list(group.rows), group.offset :]
                told = replace(tokens, starts=tuple((~real).sum(-1).tolist()))
                run = DenoisingRun(
                    model=model,
                    sampler=sampler,
                    group=group,
                    canvas=ids,
                    real=real,
                    generated=own,
                    prompt_width=batch.ids.shape[-1] - group.offset,
                    new_tokens=settings.new_tokens,
                    tokens=told,
                    watch=watch,
                    seed=settings.seed,
                    cache=cache,
                )
                run.replays, run.one_by_one = _replays(run, prepared, replay, shape.n_steps, all_copies)
                actives_of = None if run.replays is None else run.replays.actives
                runs.append(run.over(prepared.run(run.state, run.drive, actives_of)))
            return prepared, runs

        failed = ""
        with watch.shown():
            try:
                prepared, runs = _recorded(attempt, settings.replay)
            except NotRecorded as error:
                if settings.replay == "require":
                    raise
                failed = f"none could be recorded: {error}"
                prepared, runs = attempt("off")
        seconds = time.perf_counter() - start
    history, final = _whole_canvas(canvas.ids.cpu(), runs)
    costs = [cost for own in runs for cost in own.run.costs()]
    notes, row_steps = _grouped(runs)
    notes += cache_notes + broken_notes(_broken(runs))
    notes += _played(runs, prepared.plan, failed)
    notes += _unplanned(sampler, len(history), shape.n_steps) + _left(sampler, (final == mask) & generated.cpu())
    computed = None if cache is None else _computed(history, runs)[..., :asked]
    final, history = final[:, :asked], history[..., :asked]
    return finish(
        prepared,
        batch,
        Outcome(final, len(history), seconds, costs, costs, history, settings.to_json(), notes, row_steps, computed),
    )


def _recorded(attempt: Callable[[ReplayPolicy, bool], T], policy: ReplayPolicy) -> T:
    """A run whose steps are recorded; begun anew where more than its edits copies from the processor's memory."""
    try:
        return attempt(policy, False)
    except NotRecorded:
        return attempt(policy, True)


def _beyond(model: Model, sampler: Denoiser, batch: Batch, new_tokens: int) -> tuple[int, ...]:
    """Per row the places after its new tokens that make its last canvas block whole.

    Where attention sees the whole canvas they would change what is asked for, and there are none.
    """
    none = (0,) * len(batch.ids)
    return none if model.family.block_length is None else sampler.filled_up(batch.lengths, new_tokens)


def _spare(model: Model, batch: Batch, new_tokens: int, beyond: Sequence[int]) -> int:
    """Further places, which no whole block sees, for a canvas of tiles.

    Products of whole blocks then have the numbers that those of the whole canvas have, to the bit.
    """
    block, width = model.family.block_length, batch.ids.shape[-1] + new_tokens + max(beyond)
    spare = -width % _TILE
    if block is None or model.n_positions is not None and width + spare > model.n_positions:
        return 0
    whole = all((n + new_tokens + more) % block == 0 for n, more in zip(batch.lengths, beyond, strict=True))
    return spare if whole else 0


def _replays(
    run: DenoisingRun, prepared: Prepared, policy: ReplayPolicy, n_steps: int, all_copies: bool
) -> tuple[Replays | None, str]:
    """What plays the steps of a run again, None where each is computed by itself; and why on a device that records.

    Raises:
        ValueError: nothing was computed, and they are required to be played.
    """
    kept, packed = run.model.kept("recorder", "memory"), not bool(run.real.all())
    recorder = None if policy == "off" else recorder_for(run.model.device, packed, kept)
    reason = "" if run.cache is None else "a cache chooses what each step computes"
    reason = reason or obstacle(run.model, prepared.plan, n_steps, recorder, policy)
    if policy == "require" and reason:
        raise ValueError(
            f"replay='require' on {run.model.name}, where {reason}; expected steps that can be recorded and played; "
            f"use replay='auto', which computes the others one by one"
        )
    if recorder is None or reason:
        return None, "" if recorder is None else reason
    return Replays(
        recorder=recorder,
        plan=prepared.plan,
        collector=prepared.collector,
        forward=run.forward,
        state=lambda: run.known(run.canvases[-1]),
        rehearsed=run.model.kept("rehearsed", "steps").setdefault(packed, set()),
        all_copies=all_copies,
    ), ""


def _played(runs: Sequence[Decoded], plan: Plan, failed: str) -> tuple[str, ...]:
    """The note on steps that were played from a recording; why they were not where a device could have."""
    replays = [own.run.replays for own in runs if own.run.replays is not None]
    why = failed or runs[0].run.one_by_one
    if not replays and not why:
        return ()
    return replay_notes(sum(each.played for each in replays), sum(len(own.canvases) for own in runs), plan, why)


def _grouped(runs: Sequence[Decoded]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The note and the steps of each row, where prompts ran in groups of equal length."""
    if len(runs) == 1:
        return (), ()
    steps = {row: len(own.canvases) for own in runs for row in own.run.group.rows}
    note = (
        f"the model does not hide padding: prompts ran in {len(runs)} groups of equal length; what was captured at "
        f"steps that a group did not need is NaN"
    )
    return (note,), tuple(steps[row] for row in sorted(steps))


def _broken(runs: Sequence[Decoded]) -> Sequence[Tensor]:
    """Per step whether any group of rows was broken."""
    found = torch.zeros(max(len(own.broken) for own in runs), dtype=torch.bool)
    for own in runs:
        found[: len(own.broken)] |= own.broken
    return found.unbind()


def _unplanned(sampler: Denoiser, ran: int, planned: int) -> tuple[str, ...]:
    """The note on a run of other steps than its sampler planned."""
    name = type(sampler).__name__
    if ran > planned:
        return (
            f"{name} took {ran} steps and had planned {planned}; operations, captures and measures act at the planned "
            f"ones alone",
        )
    # Without numbers, so that many runs of one sampler share the note.
    return (f"{name} took fewer steps than it planned; `steps=` and thirds count the planned ones",) * (ran < planned)


def _left(sampler: Denoiser, masked: TokenMask) -> tuple[str, ...]:
    """The note on masks that no step filled."""
    count, rows = int(masked.sum()), int(masked.any(-1).sum())
    if not count:
        return ()
    return (
        f"{type(sampler).__name__} left {count} masks in {rows} of {len(masked)} rows; the text shows each as "
        f"{MASK_SIGN}",
    )


def _canvas(batch: Batch, new_tokens: int, mask: int) -> Batch:
    rows = len(batch.ids)
    return Batch(
        torch.cat([batch.ids, batch.ids.new_full((rows, new_tokens), mask)], dim=-1),
        torch.cat([batch.real, batch.real.new_ones(rows, new_tokens)], dim=-1),
    )


def _whole_canvas(canvas: TokenIds, runs: Sequence[Decoded]) -> tuple[Tensor, TokenIds]:
    """The canvases of all groups as [step, batch, position], and the finished tokens."""
    final = canvas.clone()
    history = canvas.repeat(max(len(own.canvases) for own in runs), 1, 1)
    for own in runs:
        rows, columns = list(own.run.group.rows), slice(own.run.group.offset, None)
        final[rows, columns] = own.tokens
        history[:, rows, columns] = own.tokens
        history[: len(own.canvases), rows, columns] = own.canvases.to(canvas.dtype)
    return history, final


def _computed(history: Tensor, runs: Sequence[Decoded]) -> Tensor:
    """[step, batch, position], the real columns that each step computed."""
    computed = torch.zeros_like(history, dtype=torch.bool)
    for run in (own.run for own in runs):
        for step, window in enumerate(run.windows):
            own = run.real if window is None else run.real & window.computed
            computed[step, list(run.group.rows), run.group.offset :] = own.cpu()
    return computed

"""Run a chain of operations: one forward, a denoising run, or AR decoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask, respell
from dlens.models.model import Model
from dlens.ops.capture import Capture
from dlens.ops.hook import Hook
from dlens.ops.op import Op, Target
from dlens.samplers import Autoregressive, Denoiser, Sampler, Tokens, default_for
from dlens.tracing.collect import RunShape
from dlens.tracing.decode import DecodingRun
from dlens.tracing.denoise import DenoisingRun
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.flops import StepCost
from dlens.tracing.inputs import Batch, as_batch, refuse_masks, refuse_too_long
from dlens.tracing.prepare import Prepared, cache_policy, check_run, prepare, windows
from dlens.tracing.record import Record
from dlens.tracing.state import Window, forward_state
from dlens.tracing.text import drafts, end_ids
from dlens.tracing.watch import OnStep, Watch, hold

__all__ = ["CachePolicy", "Settings", "run_forward", "run_generation", "run_shape", "sampler_for"]

CachePolicy = Literal["auto", "require", "off"]


@dataclass(frozen=True)
class Settings:
    """How a generation is run; the arguments of `Trace.generate`."""

    new_tokens: int
    sampler: Sampler
    seed: int
    infill: bool
    cache: CachePolicy
    capture_limit: int
    progress: bool
    on_step: OnStep | None
    cancel: Any

    def to_json(self) -> dict[str, Any]:
        """What is written of them into the record."""
        return {
            "new_tokens": self.new_tokens,
            "sampler": repr(self.sampler),
            "seed": self.seed,
            "infill": self.infill,
            "cache": self.cache,
        }


def run_shape(model: Model, batch: Batch, new_tokens: int = 0, sampler: Sampler | None = None) -> RunShape:
    """The size of a run: a forward without a sampler, else a generation.

    Raises:
        ValueError: the sampler does not fit the number of tokens.
    """
    rows, width = batch.ids.shape
    if sampler is None:
        return RunShape("forward", 1, rows, width, width)
    if model.family.objective == "autoregressive":
        return RunShape("decoding", sampler.planned_steps(new_tokens), rows, width + new_tokens - 1, width)
    held = ((batch.ids == model.family.mask_token_id) & batch.real).sum(-1)
    n_steps = sampler.planned_steps(new_tokens, int(held.max()))
    return RunShape("denoising", n_steps, rows, width + new_tokens, width)


def run_forward(model: Model, target: Target, ops: Sequence[Op], inputs: Any, capture_limit: int) -> Record:
    """One forward over a batch of prompts."""
    batch = as_batch(model, inputs)
    refuse_too_long(model, batch, 0)
    with hold(model.lock, None):
        shape = run_shape(model, batch)
        prepared = prepare(model, target, ops, shape, check_run(model, target, ops, shape, batch.real, capture_limit))
        start = time.perf_counter()
        costs = [_forward_window(prepared, *window) for window in windows(model, batch)]
        seconds = time.perf_counter() - start
    return finish(prepared, batch, Outcome(batch.ids, 1, seconds, costs, costs))


def _forward_window(prepared: Prepared, window: Window, ids: TokenIds, real: TokenMask) -> StepCost:
    model, has_noise = prepared.model, prepared.target.has_noise
    masked = ids == model.family.mask_token_id if has_noise else torch.zeros_like(real)
    state = forward_state(window, real, masked, has_noise)
    inputs = model.family.inputs(ids, None if bool(real.all()) else real)
    prepared.run(lambda step, args, kwargs: state, lambda: model.module(**inputs))
    return StepCost(len(ids), ids.shape[-1])


def sampler_for(model: Model, sampler: Sampler | None) -> Sampler:
    """The sampler asked for, else the default of the model's family.

    Raises:
        ValueError: it decodes the other kind of model.
    """
    family = model.family
    if sampler is None:
        return default_for(family.objective, family.shift)
    diffusion = family.objective == "diffusion"
    if not isinstance(sampler, Denoiser if diffusion else Autoregressive):
        kind = "a diffusion" if diffusion else "an autoregressive"
        expected = "LLaDA, Dream or Threshold" if diffusion else "Autoregressive"
        raise ValueError(
            f"{type(sampler).__name__} for {model.name}, which is {kind} model; "
            f"expected dlens.samplers.{expected}; pass one of these, or none for the default"
        )
    return sampler


def run_generation(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: Settings) -> Record:
    """Decode a batch of prompts, each kind of model in its way.

    Raises:
        ValueError: the settings contradict the model or each other; before anything is computed.
    """
    _check_settings(model, target, settings)
    run = run_denoising if target.has_noise else run_decoding
    return run(model, target, ops, prompts, settings)


def _check_settings(model: Model, target: Target, settings: Settings) -> None:
    cache, infill, least = settings.cache, settings.infill, 0 if settings.infill else 1
    policies = get_args(CachePolicy)
    if cache not in policies:
        raise ValueError(f"cache={cache!r}; expected one of {', '.join(policies)}; {respell(cache, policies)}")
    if cache != "auto" and target.has_noise:
        raise ValueError(
            f"cache={cache!r} on {model.name}; expected 'auto', as a diffusion model computes every position "
            f"at each step and keeps no cache; leave it out"
        )
    if infill and not target.has_noise:
        raise ValueError(
            f"infill=True on {model.name}; expected a diffusion model, as an autoregressive model only "
            f"appends; leave it out"
        )
    if settings.new_tokens < least:
        raise ValueError(f"max_new_tokens={settings.new_tokens}; expected at least {least}; ask for more tokens")


def run_denoising(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: Settings) -> Record:
    """Decode a batch of prompts with a diffusion model."""
    sampler, mask = settings.sampler, model.family.mask_token_id
    assert isinstance(sampler, Denoiser) and mask is not None
    batch = as_batch(model, prompts)
    refuse_too_long(model, batch, settings.new_tokens)
    if not settings.infill:
        refuse_masks(model, batch)
    canvas = _canvas(batch, settings.new_tokens, mask)
    generated = (canvas.ids == mask) & canvas.real
    if not bool(generated.any()):
        raise ValueError(
            "max_new_tokens=0 and no mask in any prompt; expected something to fill; ask for new tokens, or put masks "
            "into a prompt"
        )
    shape = run_shape(model, batch, settings.new_tokens, sampler)
    ends = tuple(i for i in end_ids(model) if i != model.eos_token_id)
    tokens = Tokens(mask, model.eos_token_id, ends)
    watch = _watch(model, shape.n_steps, settings, lambda ids: drafts(model, ids, ids.shape[-1] - settings.new_tokens))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, canvas.real, settings.capture_limit)
        prepared = prepare(model, target, ops, shape, plan)
        start = time.perf_counter()
        runs: list[tuple[DenoisingRun, TokenIds]] = []
        with watch.shown():
            for window, ids, real in windows(model, canvas):
                own = generated[list(window.rows), window.offset :]
                run = DenoisingRun(
                    model, sampler, window, ids, real, own, settings.new_tokens, tokens, watch, settings.seed
                )
                runs.append((run, prepared.run(run.state, run.drive)))
        seconds = time.perf_counter() - start
    history, final = _whole_canvas(canvas.ids, runs)
    costs = [StepCost(len(r.canvas) * h, r.canvas.shape[-1], halves=h) for r, _ in runs for h in r.halves]
    outcome = Outcome(final, len(history), seconds, costs, costs, history, settings.to_json(), *_grouped(runs))
    return finish(prepared, batch, outcome)


def _grouped(runs: Sequence[tuple[DenoisingRun, Tensor]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The note and the steps of each row, where prompts ran in groups of equal length."""
    if len(runs) == 1:
        return (), ()
    steps = {row: len(run.canvases) for run, _ in runs for row in run.window.rows}
    note = (
        f"the model does not hide padding: prompts ran in {len(runs)} groups of equal length; what was captured at "
        f"steps that a group did not need is NaN"
    )
    return (note,), tuple(steps[row] for row in sorted(steps))


def _canvas(batch: Batch, new_tokens: int, mask: int) -> Batch:
    rows = len(batch.ids)
    return Batch(
        torch.cat([batch.ids, batch.ids.new_full((rows, new_tokens), mask)], dim=-1),
        torch.cat([batch.real, batch.real.new_ones(rows, new_tokens)], dim=-1),
    )


def _whole_canvas(canvas: TokenIds, runs: Sequence[tuple[DenoisingRun, Tensor]]) -> tuple[Tensor, TokenIds]:
    """The canvases of all windows as [step, batch, position], and the finished tokens."""
    final = canvas.clone()
    history = canvas.repeat(max(len(run.canvases) for run, _ in runs), 1, 1)
    for run, done in runs:
        rows, columns = list(run.window.rows), slice(run.window.offset, None)
        final[rows, columns] = done
        history[:, rows, columns] = done
        for step, before in enumerate(run.canvases):
            history[step, rows, columns] = before
    return history, final


def run_decoding(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: Settings) -> Record:
    """Decode a batch of prompts with an autoregressive model."""
    assert isinstance(settings.sampler, Autoregressive)
    batch = as_batch(model, prompts)
    refuse_too_long(model, batch, settings.new_tokens)
    if batch.padded and not model.honours_padding:
        raise ValueError(
            f"{model.name} does not hide padding and got prompts of unequal length; expected one length; "
            f"generate them one by one"
        )
    rows, width = batch.ids.shape
    shape = run_shape(model, batch, settings.new_tokens, settings.sampler)
    real = torch.cat([batch.real, batch.real.new_ones(rows, settings.new_tokens)], dim=-1)
    watch = _watch(model, shape.n_steps, settings, lambda ids: drafts(model, ids, width))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, real, settings.capture_limit)
        use_cache, notes = cache_policy(plan, settings.cache, target)
        prepared = prepare(model, target, ops, shape, plan)
        run = DecodingRun(
            model=model,
            sampler=settings.sampler,
            prompts=batch.ids,
            real=batch.real,
            new_tokens=settings.new_tokens,
            end_ids=end_ids(model),
            use_cache=use_cache,
            empties_cache=bool(prepared.plan.uncached_layers(target)),
            all_logits=any(_reads_logits(op) for op in ops),
            watch=watch,
            seed=settings.seed,
        )
        start = time.perf_counter()
        with watch.shown():
            tokens = prepared.run(run.state, run.drive)
        seconds = time.perf_counter() - start
    notes += _left_out(run)
    n_run = tokens.shape[-1] - width
    costs = [StepCost(*shape) for shape in run.step_shapes(n_run, use_cache)]
    plain = [StepCost(*shape) for shape in run.step_shapes(n_run, settings.cache != "off")]
    return finish(prepared, batch, Outcome(tokens, n_run, seconds, costs, plain, None, settings.to_json(), notes))


def _left_out(run: DecodingRun) -> tuple[str, ...]:
    """The note on what a checkpoint's generation config asks for and dlens does not do."""
    said_by_sampler = {"do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "use_cache"}
    left_out = sorted(run.neutral().keys() - said_by_sampler)
    return (f"not used of the checkpoint's generation config: {', '.join(left_out)}",) if left_out else ()


def _reads_logits(op: Op) -> bool:
    return (isinstance(op, Capture) and op.point == "logits") or (isinstance(op, Hook) and op.at == "logits")


def _watch(model: Model, n_steps: int, settings: Settings, decode: Any) -> Watch:
    return Watch(n_steps, settings.progress, settings.on_step, settings.cancel, decode)

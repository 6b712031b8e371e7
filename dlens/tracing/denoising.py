"""A denoising run, whole: the canvas, what is known of each step, and the forward that samplers call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.samplers.sampler import Denoiser, Tokens
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.finite import broken, broken_notes
from dlens.tracing.planning.alignment import aligned
from dlens.tracing.planning.inputs import Batch, as_batch, refuse_masks, refuse_too_long
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import check_run, prepare, windows
from dlens.tracing.probes.flops import StepCost
from dlens.tracing.progress import Watch, hold, refuse_stray_call
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import MASK_SIGN, drafts, end_ids
from dlens.tracing.settings import RunSettings, watch_of
from dlens.tracing.step.state import StepState, Window, denoising_state

__all__ = ["DenoisingRun", "aligned", "run_denoising", "uniform_draws"]


def run_denoising(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: RunSettings) -> Record:
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
    watch = watch_of(shape.n_steps, settings, lambda ids: drafts(model, ids, ids.shape[-1] - settings.new_tokens))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, canvas.real, settings.capture_limit)
        prepared = prepare(model, target, ops, shape, plan, settings.gather)
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
    notes, row_steps = _grouped(runs)
    notes += broken_notes(_by_step(runs))
    notes += _unplanned(sampler, len(history), shape.n_steps) + _left(sampler, (final == mask) & generated)
    outcome = Outcome(final, len(history), seconds, costs, costs, history, settings.to_json(), notes, row_steps)
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


def _by_step(runs: Sequence[tuple[DenoisingRun, Tensor]]) -> list[Tensor]:
    """Per step whether any group of rows was broken."""
    longest = max(len(run.broken) for run, _ in runs)
    return [
        torch.stack([run.broken[step] for run, _ in runs if step < len(run.broken)]).any() for step in range(longest)
    ]


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


@final
@dataclass
class DenoisingRun:
    """One window of a denoising run; called by the sampler once a step.

    Args:
        model: what is run.
        sampler: how tokens are committed.
        window: which rows and columns of the batch.
        canvas: [batch, position], prompts and masks.
        real: [batch, position], what is not padding.
        generated: [batch, position], what is to be decoded.
        new_tokens: positions after the prompt.
        tokens: special token ids.
        watch: told of every step.
        seed: of the sampler's random numbers.
        canvases: the canvas at the start of each step, filled while running.
        halves: per step 2 where guidance ran, else 1.
        broken: per step whether the logits of a mask were NaN or infinite.
    """

    model: Model
    sampler: Denoiser
    window: Window
    canvas: TokenIds
    real: TokenMask
    generated: TokenMask
    new_tokens: int
    tokens: Tokens
    watch: Watch
    seed: int
    canvases: list[TokenIds] = field(default_factory=list)
    halves: list[int] = field(default_factory=list)
    broken: list[Tensor] = field(default_factory=list)

    def drive(self) -> TokenIds:
        """Decode; returns the finished canvas."""
        draw, given = uniform_draws(self.seed, self.model.device), self.canvas.clone()
        final = self.sampler.decode(self, self.canvas, self.generated, self.new_tokens, self.tokens, draw)
        if not self.canvases and bool(self.generated.any()):
            raise ValueError(
                f"{type(self.sampler).__name__} took no step; expected at least one; call forward(canvas) in decode"
            )
        self._refuse_unlike(final, given)
        self._ended(final)
        return final

    def _refuse_unlike(self, final: Any, given: TokenIds) -> None:
        """Refuse what is no filled canvas of the prompts.

        Raises:
            ValueError: says what came.
        """
        name, vocabulary = type(self.sampler).__name__, self.model.vocab_size
        came = ""
        if not isinstance(final, Tensor):
            came = type(final).__name__
        elif (final.shape, final.dtype) != (given.shape, given.dtype):
            came = f"a canvas {list(final.shape)} of {final.dtype}"
        elif bool(((final < 0) | (final >= vocabulary)).any()):
            came = f"token ids from {int(final.min())} to {int(final.max())}"
        elif bool((final != given)[~self.generated].any()):
            came = "a canvas with other tokens in its prompts"
        if came:
            raise ValueError(
                f"{name}.decode returned {came}; expected the canvas {list(given.shape)} of {given.dtype} that it got, "
                f"its prompts as they were and ids below {vocabulary} in the other places; fill where `generated` is "
                f"True, as canvas.where(~generated, tokens) does"
            )

    def __call__(self, canvas: TokenIds, unconditional: TokenIds | None = None) -> Tensor:
        """One step: see `dlens.samplers.sampler.Forward`."""
        if canvas.shape != self.canvas.shape:
            raise ValueError(
                f"{type(self.sampler).__name__} asked for a step of a canvas {list(canvas.shape)}; expected "
                f"{list(self.canvas.shape)}, prompts and new tokens, at every step; write tokens into the canvas it "
                f"was given, and leave undecided ones masked"
            )
        self._ended(canvas)
        self.watch.begin()
        self.canvases.append(canvas.clone())
        self.halves.append(1 if unconditional is None else 2)
        ids, real = canvas, self.real
        if unconditional is not None:
            ids, real = torch.cat([canvas, unconditional]), self.real.repeat(2, 1)
        mask = real if self._padded else None
        logits = self.model.module(**self.model.family.inputs(ids, mask)).logits
        logits = aligned(logits, self.model.family.shift, real)
        logits = logits if unconditional is None else logits.unflatten(0, (2, len(canvas)))
        self.broken.append(broken(logits[..., (canvas == self.tokens.mask) & self.generated, :]))
        return logits

    def __post_init__(self) -> None:
        self._padded = not bool(self.real.all())  # once, so that no step asks the device
        self._ends = torch.tensor([i for i in (self.tokens.eos, *self.tokens.ends) if i is not None])
        self._ends = self._ends.to(self.real.device)

    def _ended(self, canvas: TokenIds) -> None:
        if self.canvases:
            self.watch.end(len(self.canvases) - 1, canvas, self.window.rows)

    def state(self, step: int, args: Sequence[Any], kwargs: dict[str, Any]) -> StepState:
        """What is known of a step when it starts."""
        refuse_stray_call(step, len(self.canvases))
        canvas = self.canvases[step]
        return denoising_state(
            step=step,
            window=self.window,
            real=self.real,
            generated=self.generated,
            masked=(canvas == self.tokens.mask) & self.generated,
            ends=torch.isin(canvas, self._ends) & self.generated,
            halves=self.halves[step],
        )


def uniform_draws(seed: int, device: torch.device) -> Any:
    """A source of float64 numbers uniform in [0, 1) from one `torch.Generator`."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device=device)

    return draw

"""A denoising run, whole: the canvas, what is known of each step, and the forward that samplers call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.caches.cache import Cache
from dlens.caches.course import Course
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.samplers.sampler import Columns, Denoiser, Tokens
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.finite import broken, broken_notes
from dlens.tracing.planning.alignment import aligned, at_columns, source_columns
from dlens.tracing.planning.inputs import Batch, as_batch, refuse_masks, refuse_too_long
from dlens.tracing.planning.kv_cache import canvas_cache
from dlens.tracing.planning.plan import Plan
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import Prepared, check_run, groups, prepare
from dlens.tracing.probes.flops import StepCost
from dlens.tracing.progress import Watch, hold, refuse_stray_call
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import MASK_SIGN, drafts, end_ids
from dlens.tracing.replay.recorder import recorder_for
from dlens.tracing.replay.replays import NotRecorded, ReplayPolicy, Replays, obstacle, replay_notes
from dlens.tracing.settings import RunSettings, watch_of
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.halves import HalfOutputs
from dlens.tracing.step.state import Group, StepState, denoising_state
from dlens.tracing.step.window import Window, window_of

__all__ = ["DenoisingRun", "aligned", "run_denoising", "uniform_draws"]


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
    canvas = _canvas(batch, settings.new_tokens + max(beyond), mask)
    generated = (canvas.ids == mask) & canvas.real
    for row, more in enumerate(beyond):
        generated[row, asked + more :] = False
    if not bool(generated.any()):
        raise ValueError(
            "max_new_tokens=0 and no mask in any prompt; expected something to fill; ask for new tokens, or put masks "
            "into a prompt"
        )
    shape = replace(run_shape(model, batch, settings.new_tokens, sampler), width=canvas.ids.shape[-1])
    ends = tuple(i for i in end_ids(model) if i != model.eos_token_id)
    tokens = Tokens(mask, model.eos_token_id, ends)
    watch = watch_of(shape.n_steps, settings, lambda ids: drafts(model, ids[:, :asked], batch.ids.shape[-1]))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, canvas.real, settings.capture_limit)
        cache, cache_notes = canvas_cache(model, plan, settings.cache)
        start = time.perf_counter()

        def attempt(replay: ReplayPolicy) -> tuple[Prepared, list[tuple[DenoisingRun, TokenIds]]]:
            prepared = prepare(model, target, ops, shape, plan)
            runs: list[tuple[DenoisingRun, TokenIds]] = []
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
                run.replays = _replays(run, prepared, replay, shape.n_steps)
                actives_of = None if run.replays is None else run.replays.actives
                runs.append((run, prepared.run(run.state, run.drive, actives_of)))
            return prepared, runs

        failed = ""
        with watch.shown():
            try:
                prepared, runs = attempt(settings.replay)
            except NotRecorded as error:
                if settings.replay == "require":
                    raise
                failed = str(error)
                prepared, runs = attempt("off")
        seconds = time.perf_counter() - start
    history, final = _whole_canvas(canvas.ids, runs)
    costs = [cost for run, _ in runs for cost in run.costs()]
    notes, row_steps = _grouped(runs)
    notes += cache_notes + broken_notes(_by_step(runs))
    notes += _played(runs, prepared.plan, failed)
    notes += _unplanned(sampler, len(history), shape.n_steps) + _left(sampler, (final == mask) & generated)
    computed = None if cache is None else _computed(history, runs)[..., :asked]
    final, history = final[:, :asked], history[..., :asked]
    return finish(
        prepared,
        batch,
        Outcome(final, len(history), seconds, costs, costs, history, settings.to_json(), notes, row_steps, computed),
    )


def _beyond(model: Model, sampler: Denoiser, batch: Batch, new_tokens: int) -> tuple[int, ...]:
    """Per row the places after its new tokens that make its last canvas block whole.

    Where attention sees the whole canvas they would change what is asked for, and there are none.
    """
    none = (0,) * len(batch.ids)
    return none if model.family.block_length is None else sampler.filled_up(batch.lengths, new_tokens)


def _replays(run: DenoisingRun, prepared: Prepared, policy: ReplayPolicy, n_steps: int) -> Replays | None:
    """What plays the steps of a run again; None where each is computed by itself.

    Raises:
        ValueError: nothing was computed, and they are required to be played.
    """
    recorder = None if policy == "off" else recorder_for(run.model.device, packed=not bool(run.real.all()))
    reason = "" if run.cache is None else "a cache chooses what each step computes"
    reason = reason or obstacle(run.model, prepared.plan, n_steps, recorder, policy)
    if policy == "require" and reason:
        raise ValueError(
            f"replay='require' on {run.model.name}, where {reason}; expected steps that can be recorded and played; "
            f"use replay='auto', which computes the others one by one"
        )
    if recorder is None or reason:
        return None
    return Replays(recorder, prepared.plan, prepared.collector, run.forward, lambda: run.known(run.canvases[-1]))


def _played(runs: Sequence[tuple[DenoisingRun, Tensor]], plan: Plan, failed: str) -> tuple[str, ...]:
    """The note on steps that were played from a recording; why they were not where that failed."""
    replays = [run.replays for run, _ in runs if run.replays is not None]
    if not replays and not failed:
        return ()
    return replay_notes(sum(each.played for each in replays), sum(len(run.canvases) for run, _ in runs), plan, failed)


def _grouped(runs: Sequence[tuple[DenoisingRun, Tensor]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The note and the steps of each row, where prompts ran in groups of equal length."""
    if len(runs) == 1:
        return (), ()
    steps = {row: len(run.canvases) for run, _ in runs for row in run.group.rows}
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
    """The canvases of all groups as [step, batch, position], and the finished tokens."""
    final = canvas.clone()
    history = canvas.repeat(max(len(run.canvases) for run, _ in runs), 1, 1)
    for run, done in runs:
        rows, columns = list(run.group.rows), slice(run.group.offset, None)
        final[rows, columns] = done
        history[:, rows, columns] = done
        for step, before in enumerate(run.canvases):
            history[step, rows, columns] = before
    return history, final


def _computed(history: Tensor, runs: Sequence[tuple[DenoisingRun, Tensor]]) -> Tensor:
    """[step, batch, position], the real columns that each step computed."""
    computed = torch.zeros_like(history, dtype=torch.bool)
    for run, _ in runs:
        for step, window in enumerate(run.windows):
            own = run.real if window is None else run.real & window.computed
            computed[step, list(run.group.rows), run.group.offset :] = own
    return computed


@final
@dataclass
class DenoisingRun:
    """One group of a denoising run; called by the sampler once a step.

    Args:
        model: what is run.
        sampler: how tokens are committed.
        group: which rows and columns of the batch.
        canvas: [batch, position], prompts and masks.
        real: [batch, position], what is not padding.
        generated: [batch, position], what is to be decoded.
        prompt_width: positions of the prompts.
        new_tokens: positions after the prompt that were asked for; more follow where canvas blocks are made whole.
        tokens: special token ids.
        watch: told of every step.
        seed: of the sampler's random numbers.
        cache: which columns a step computes; None is all at every step.
        canvases: the canvas at the start of each step, filled while running.
        halves: per step 2 where guidance ran, else 1.
        replays: plays recorded steps; None computes each.
        calls: how often the module was called.
        windows: per step what it computed; None is all.
        broken: per step whether the logits of a mask that the sampler read were NaN or infinite.
    """

    model: Model
    sampler: Denoiser
    group: Group
    canvas: TokenIds
    real: TokenMask
    generated: TokenMask
    prompt_width: int
    new_tokens: int
    tokens: Tokens
    watch: Watch
    seed: int
    cache: Cache | None = None
    canvases: list[TokenIds] = field(default_factory=list)
    halves: list[int] = field(default_factory=list)
    replays: Replays | None = None
    calls: int = 0
    windows: list[Window | None] = field(default_factory=list)
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

    def __call__(
        self, canvas: TokenIds, unconditional: TokenIds | None = None, columns: Columns | None = None
    ) -> Tensor:
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
        ids = canvas if unconditional is None else torch.cat([canvas, unconditional])
        open = (canvas == self.tokens.mask) & self.generated
        self.windows.append(self._window(canvas, open, columns))
        logits = self._logits(ids, columns)
        logits = logits if unconditional is None else logits.unflatten(0, (2, len(canvas)))
        self.broken.append(broken(logits[..., at_columns(open, columns), :]))
        return logits

    def _window(self, canvas: TokenIds, open: TokenMask, columns: Columns | None) -> Window | None:
        """What a step computes; None is all of the canvas."""
        if self._course is None:
            return None
        if columns is None:
            columns = torch.arange(canvas.shape[1], device=canvas.device)
        source = source_columns(columns, self.model.family.shift, self.real)
        both = torch.cat([part.expand(len(canvas), -1) for part in (columns, source)], dim=-1)
        asked = torch.zeros_like(open).scatter_(1, both, True)
        masked = at_columns(open, columns).repeat(1, 2)
        # Several columns may write one place: any that is a mask decides.
        needed = torch.zeros_like(open, dtype=torch.long).scatter_add_(1, both, masked.long()) > 0
        chosen = self._course.step(canvas, open, asked, needed)
        return None if chosen is None else window_of(chosen)

    def _logits(self, ids: TokenIds, columns: Columns | None) -> Tensor:
        """The logits of the columns that are read, both halves one after the other."""
        if self.replays is not None:
            whole = self.replays(ids, len(self.canvases) - 1, self.halves[-1])
            # The next play writes over it, and a sampler may keep what it got.
            return whole.clone() if columns is None else at_columns(whole, columns)
        return self.forward(ids, columns)

    def forward(self, ids: TokenIds, columns: Columns | None = None) -> Tensor:
        """Call the module with a canvas, both halves of it under guidance; its logits, aligned, where they are read."""
        self._now = ids[: len(self.real)]
        self.calls += 1
        real = self.real.repeat(len(ids) // len(self.real), 1)
        window, shift = self.windows[-1], self.model.family.shift
        if self._keys is None:
            mask = real if self._padded else None
            return aligned(self.model.module(**self.model.family.inputs(ids, mask)).logits, shift, real, columns)
        with self._halves_of(len(self.windows) - 1):
            logits = self._keys.logits(ids, real if self._padded else None, window)
        if window is None or columns is None:
            return aligned(logits, shift, real, columns)
        source = source_columns(columns, shift, self.real).expand(len(self.real), -1)
        halves = len(ids) // len(source)
        read = at_columns(logits, window.find(source).repeat(halves, 1))
        if self.cache is None or self.cache.decoded_too:
            return read
        left_out = ~window.computed.gather(1, source).repeat(halves, 1)
        return read.masked_fill(left_out[..., None], torch.nan)

    def _halves_of(self, step: int) -> AbstractContextManager[None]:
        """What each half of a block computes at a step."""
        now = None if self.cache is None else self.cache.halves(step)
        return nullcontext() if now is None or self._outputs is None else self._outputs.step(now)

    def costs(self) -> list[StepCost]:
        """What decides the FLOPs of each step."""
        rows, width = self.canvas.shape
        costs = []
        for step, (halves, window) in enumerate(zip(self.halves, self.windows, strict=True)):
            cost = StepCost(rows * halves, width, halves=halves)
            if window is not None:
                cost = replace(cost, query=window.index.shape[1], canvas=width)
            elif self.cache is not None and step and (now := self.cache.halves(step)) is not None:
                cost = replace(cost, by_half=(now, self.prompt_width))
            costs.append(cost)
        return costs

    def __post_init__(self) -> None:
        self._now = self.canvas
        block_length = self.model.family.block_length
        self._course = None if self.cache is None else Course(self.cache, self.real, block_length)
        self._keys = None if self.cache is None else CanvasKeys(self.model, self.canvas.shape[-1])
        self._outputs = None if self._keys is None else HalfOutputs(self.model, self._keys, self.prompt_width)
        self._padded = not bool(self.real.all())  # once, so that no step asks the device
        self._ends = torch.tensor([i for i in (self.tokens.eos, *self.tokens.ends) if i is not None])
        self._ends = self._ends.to(self.real.device)

    def _ended(self, canvas: TokenIds) -> None:
        if self.canvases:
            self.watch.end(len(self.canvases) - 1, canvas, self.group.rows)

    def state(self, step: int, args: Sequence[Any], kwargs: dict[str, Any]) -> StepState:
        """What is known of a step when it starts."""
        refuse_stray_call(step, self.calls)
        return self.known(self._now)

    def known(self, canvas: TokenIds) -> StepState:
        """What is known of the newest step, whose canvas is given."""
        step = len(self.canvases) - 1
        # What lies beyond the last block of a row is not measured.
        beyond = (canvas == self.tokens.mask) & ~self.generated
        state = denoising_state(
            step=step,
            group=self.group,
            real=self.real & ~beyond,
            generated=self.generated,
            masked=(canvas == self.tokens.mask) & self.generated,
            ends=torch.isin(canvas, self._ends) & self.generated,
            halves=self.halves[step],
        )
        return state.within(self.windows[step])


def uniform_draws(seed: int, device: torch.device) -> Any:
    """A source of float64 numbers uniform in [0, 1) from one `torch.Generator`."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device=device)

    return draw

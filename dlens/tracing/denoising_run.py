"""A denoising run while it decodes: the canvas, what is known of each step, and the forward that samplers call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.caches.cache import Cache
from dlens.caches.course import Course
from dlens.devices import Fetched
from dlens.models.model import Model
from dlens.samplers.sampler import Columns, Denoiser, Tokens
from dlens.tracing.planning.alignment import aligned, at_columns, source_columns
from dlens.tracing.probes.flops import StepCost
from dlens.tracing.progress import Watch, refuse_stray_call
from dlens.tracing.records.finite import broken
from dlens.tracing.replay.replays import Replays
from dlens.tracing.step.canvas import CanvasKeys
from dlens.tracing.step.halves import HalfOutputs
from dlens.tracing.step.state import Group, StepState, denoising_state
from dlens.tracing.step.window import Window, window_of

__all__ = ["Decoded", "DenoisingRun", "uniform_draws"]


@final
@dataclass(frozen=True)
class Decoded:
    """What a run decoded, on the processor.

    Args:
        run: the run, which is over.
        tokens: [batch, position], the finished canvas.
        canvases: [step, batch, position], that at the start of each step.
        broken: [step], whether the logits of a mask that the sampler read were NaN or infinite.
    """

    run: DenoisingRun
    tokens: Tensor
    canvases: Tensor
    broken: Tensor


@final
@dataclass
class DenoisingRun:
    """One group of rows; called by the sampler once a step.

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
        one_by_one: why none is played on a device that records; empty elsewhere.
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
    one_by_one: str = ""
    calls: int = 0
    windows: list[Window | None] = field(default_factory=list)
    broken: list[Tensor] = field(default_factory=list)

    def drive(self) -> TokenIds:
        """Decode; returns the canvas that the sampler filled, at which the device may still be at work."""
        draw, self._given = uniform_draws(self.seed, self.model.device), self.canvas.clone()
        final = self.sampler.decode(self, self.canvas, self.generated, self.new_tokens, self.tokens, draw)
        if not self.canvases and bool(self.generated.any()):
            raise ValueError(
                f"{type(self.sampler).__name__} took no step; expected at least one; call forward(canvas) in decode"
            )
        self._refuse_unlike(final)
        if self.watch.on_step is not None:
            self._refuse_values(final, self._given, self.generated)
        self._ended(final)
        return final

    def over(self, final: TokenIds) -> Decoded:
        """The run is over: what it decoded, once the device is done with it.

        Args:
            final: what `drive` returned.

        Raises:
            ValueError: it is no filled canvas of the prompts.
        """
        broken = torch.stack(self.broken) if self.broken else torch.zeros(0, dtype=torch.bool)
        held = final, torch.stack([self._given, *self.canvases]), broken, self.generated
        try:
            fetched = [Fetched(tensor) for tensor in held]
        finally:
            if self.replays is not None:
                # While the device computes what was asked of it.
                self.replays.over()
        tokens, canvases, broken, generated = (tensor.wait() for tensor in fetched)
        self._refuse_values(tokens, canvases[0], generated)
        return Decoded(self, tokens, canvases[1:], broken)

    def _refuse_unlike(self, final: Any) -> None:
        """Refuse what is no canvas as it was given."""
        if not isinstance(final, Tensor):
            raise self._unlike(type(final).__name__)
        if (final.shape, final.dtype) != (self._given.shape, self._given.dtype):
            raise self._unlike(f"a canvas {list(final.shape)} of {final.dtype}")
        if final.device != self._given.device:
            raise self._unlike(f"a canvas on {final.device}")

    def _refuse_values(self, final: TokenIds, given: TokenIds, generated: TokenMask) -> None:
        """Refuse a canvas that is not filled with tokens, or has other prompts; of tensors on a device it waits."""
        if bool(((final < 0) | (final >= self.model.vocab_size)).any()):
            raise self._unlike(f"token ids from {int(final.min())} to {int(final.max())}")
        if bool((final != given)[~generated].any()):
            raise self._unlike("a canvas with other tokens in its prompts")

    def _unlike(self, came: str) -> ValueError:
        given = self._given
        return ValueError(
            f"{type(self.sampler).__name__}.decode returned {came}; expected the canvas {list(given.shape)} of "
            f"{given.dtype} that it got, its prompts as they were and ids below {self.model.vocab_size} in the other "
            f"places; fill where `generated` is True, as canvas.where(~generated, tokens) does"
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
        self.broken.append(broken(logits, at_columns(open, columns)))
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
        if window is None:
            return aligned(logits, shift, real, columns)
        if columns is None:
            columns = torch.arange(window.width, device=ids.device)
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
        self._now = self._given = self.canvas
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
        masks = canvas == self.tokens.mask
        state = denoising_state(
            step=step,
            group=self.group,
            # What lies beyond the last block of a row, masks that are not generated, is not measured.
            real=self.real & (masks <= self.generated),
            generated=self.generated,
            masked=masks & self.generated,
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

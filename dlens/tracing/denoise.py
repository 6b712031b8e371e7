"""Drive a denoising run: the forward callable that samplers call, and what it knows of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import Logits, TokenIds, TokenMask
from dlens.models.model import Model
from dlens.samplers.sampler import Denoiser, Tokens
from dlens.tracing.state import StepState, Window, denoising_state
from dlens.tracing.watch import Watch, refuse_stray_call

__all__ = ["DenoisingRun", "aligned", "uniform_draws"]


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

    def drive(self) -> TokenIds:
        """Decode; returns the finished canvas."""
        draw = uniform_draws(self.seed, self.model.device)
        final = self.sampler.decode(self, self.canvas, self.generated, self.new_tokens, self.tokens, draw)
        self._ended(final)
        return final

    def __call__(self, canvas: TokenIds, unconditional: TokenIds | None = None) -> Tensor:
        """One step: see `dlens.samplers.sampler.Forward`."""
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
        return logits if unconditional is None else logits.unflatten(0, (2, len(canvas)))

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


def aligned(logits: Logits, shift: int, real: TokenMask) -> Logits:
    """Move logits so that those at a position predict the token there.

    A row's first real token has nothing before it and keeps its own logits, as in Dream's sampler.

    Args:
        logits: [batch, position, vocab] as the module gives them.
        shift: of the family.
        real: [batch, position], what is not padding.
    """
    if shift == 0:
        return logits
    moved = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    first = real & (real.long().cumsum(-1) == 1)
    return torch.where(first[..., None], logits, moved)


def uniform_draws(seed: int, device: torch.device) -> Any:
    """A source of float64 numbers uniform in [0, 1) from one `torch.Generator`."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device=device)

    return draw

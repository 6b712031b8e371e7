"""What is known of a step when it starts: which positions it covers and what stands in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import STATES, TokenMask
from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import N_NOISE_BINS
from dlens.ops.base.tokens import TokenSpec
from dlens.tracing.planning.tokens import after
from dlens.tracing.step.window import Window

__all__ = ["StepState", "Group", "denoising_state", "forward_state", "key_mask", "noise_bin", "step_mask"]


@dataclass(frozen=True)
class Group:
    """Which rows and columns of the whole batch a run covers.

    A model that does not honour padding runs its prompts in groups of equal length.

    Args:
        rows: row numbers.
        offset: the first column.
    """

    rows: tuple[int, ...]
    offset: int


_MASKS = ("real", "generated", "masked", "ended", "noise_over")


@dataclass(frozen=True)
class StepState:
    """A step as operations, captures and measures see it.

    Args:
        step: its number.
        group: where its rows and columns lie in the whole batch.
        columns: the columns of the group that this forward computes; all of them where `window` has no one span.
        fresh: the first of them that no earlier step of the run computed (AR decoding without a cache
            computes old columns again); 0 where every step is a new canvas.
        real: [batch, position] of those columns, what is not padding.
        generated: what is to be decoded or was.
        masked: what is still a mask.
        ended: what follows the end of its row.
        halves: 2 under classifier-free guidance, else 1.
        has_noise: whether the noise level is defined.
        noise_over: the positions whose masked share is the noise level; every masked one is among them.
        window: which columns of its canvas a cached step computes, those that the masks above are of; None is all.
        whole: the step as one that computes all of its canvas, where there is a window.
    """

    step: int
    group: Group
    columns: slice
    fresh: int
    real: TokenMask
    generated: TokenMask
    masked: TokenMask
    ended: TokenMask
    halves: int
    has_noise: bool
    noise_over: TokenMask
    window: Window | None = None
    whole: StepState | None = None

    def within(self, window: Window | None) -> StepState:
        """The same step where a cache computes some columns alone."""
        if window is None:
            return self
        masks = {name: window.take(getattr(self, name)) for name in _MASKS}
        return replace(self, columns=window.span or self.columns, window=window, whole=self, **masks)

    @property
    def full_columns(self) -> slice:
        """The columns in the coordinates of the whole batch."""
        return slice(self.columns.start + self.group.offset, self.columns.stop + self.group.offset)

    @cached_property
    def noise(self) -> tuple[float, ...] | None:
        """Per row the share of masked positions; None where it is undefined."""
        if not self.has_noise:
            return None
        if self.whole is not None:
            return self.whole.noise
        masked, total = self._noise_counts()
        return tuple((masked.double() / total.clamp(min=1)).tolist())

    def _noise_counts(self) -> tuple[Tensor, Tensor]:
        return self.masked.sum(-1), self.noise_over.sum(-1)

    @cached_property
    def state(self) -> Int[Tensor, "batch position"]:
        """Per position 0 prompt, 1 masked, 2 decoded, -1 not measured."""
        state = self.generated * STATES.index("decoded")  # and prompt is 0
        state.masked_fill_(self.masked, STATES.index("masked"))
        return state.masked_fill_(self.real <= self.ended, -1)

    @cached_property
    def cells(self) -> Cells:
        """Which positions count, and in which (noise, state) cell; of a window, in the columns of its canvas."""
        if self.whole is not None and self.window is not None:
            cells = self.whole.cells
            return Cells(cells.state.masked_fill(~self.window.computed, -1), cells.noise)
        noise = noise_bin(*self._noise_counts()) if self.has_noise else torch.zeros_like(self.state[:, 0])
        return Cells(self.state, noise)


def noise_bin(masked: Int[Tensor, " batch"], total: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The bin lo < masked / total <= hi of ten, 0 in the first; in whole numbers, so that 3 of 10 is exact."""
    # ceil(a / b) - 1 is floor((a - 1) / b).
    return torch.div(masked * N_NOISE_BINS - 1, total.clamp(min=1), rounding_mode="floor").clamp_(min=0)


def forward_state(group: Group, real: TokenMask, masked: TokenMask, has_noise: bool) -> StepState:
    """The state of a single forward: masks are to be decoded, the rest is prompt."""
    masked = masked & real
    return StepState(
        step=0,
        group=group,
        columns=slice(0, real.shape[-1]),
        fresh=0,
        real=real,
        generated=masked,
        masked=masked,
        ended=torch.zeros_like(real),
        halves=1,
        has_noise=has_noise,
        noise_over=real,
    )


def denoising_state(
    step: int, group: Group, real: TokenMask, generated: TokenMask, masked: TokenMask, ends: TokenMask, halves: int
) -> StepState:
    """The state of a denoising step; `ends` marks decoded end-of-sequence tokens."""
    return StepState(
        step=step,
        group=group,
        columns=slice(0, real.shape[-1]),
        fresh=0,
        real=real,
        generated=generated,
        masked=masked,
        ended=after(ends) & generated,
        halves=halves,
        has_noise=True,
        noise_over=generated,
    )


def step_mask(tokens: TokenSpec, fixed: Tensor | None, state: StepState) -> Tensor | None:
    """Which positions of a step's value are selected; None for all of them."""
    if state.window is not None and state.whole is not None:
        chosen = step_mask(tokens, fixed, state.whole)
        return None if chosen is None else state.window.take(chosen)
    if fixed is not None:
        rows = state.group.rows
        # Numbers of rows would have to be sent to the device first.
        return (fixed if len(rows) == len(fixed) else fixed[list(rows)])[:, state.full_columns]
    if tokens == "all":
        return None
    if tokens == "prompt":
        return state.real & ~state.generated
    if tokens == "masked":
        return state.masked
    if tokens == "decoded":
        return state.generated & ~state.masked
    last = torch.zeros_like(state.real)
    last[:, -1] = True
    return last


def key_mask(
    tokens: TokenSpec, fixed: Tensor | None, state: StepState, n_keys: int, prompt_width: int
) -> Tensor | None:
    """Which keys of a step are selected, those in a cache too; None for all of them.

    Args:
        tokens, fixed: as of `step_mask`.
        n_keys: how many keys there are, the last of which are the step's own columns.
        prompt_width: columns of the whole batch that are prompt.
    """
    if state.whole is not None:
        return step_mask(tokens, fixed, state.whole)
    stop = state.full_columns.stop
    if fixed is not None:
        return fixed[list(state.group.rows)][:, stop - n_keys : stop]
    if tokens == "all" or n_keys == state.real.shape[-1]:
        return step_mask(tokens, fixed, state)
    columns = torch.arange(stop - n_keys, stop, device=state.real.device)
    chosen = {"prompt": columns < prompt_width, "decoded": columns >= prompt_width, "last": columns == stop - 1}
    return chosen[str(tokens)].expand(len(state.real), -1)

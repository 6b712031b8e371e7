"""Copy chosen rows of a run to where a stream wants them, forward by forward, while the model goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask, hook_name
from dlens.devices import sent
from dlens.ops.base.tokens import TokenSpec
from dlens.ops.capture import Capture
from dlens.tracing.step.program import Spot
from dlens.tracing.step.state import StepState, step_mask
from dlens.tracing.streams.places import Places
from dlens.tracing.streams.shard import Mark, Part

__all__ = ["Gather"]


@final
class Gather:
    """Takes captures in the place of a record; hands on the rows of each forward when the next one begins.

    On CUDA rows leave on a stream of their own, into memory that the device can write to by itself, so that copies
    and the next block run at once.

    Args:
        tokens: which positions.
        deliver: gets the rows of each forward.
    """

    def __init__(self, tokens: TokenSpec, deliver: Callable[[Part], None]) -> None:
        self._tokens = tokens
        self._deliver = deliver
        self._sides: dict[torch.device, Any] = {}
        self._known: tuple[StepState, TokenIds] | None = None
        self._begun = 0

    def start(
        self,
        begin: Mark,
        prompts: Int[Tensor, " batch"],
        first: Int[Tensor, " batch"],
        fixed: TokenMask | None,
        width: int,
    ) -> None:
        """A batch starts.

        Args:
            begin: the batch, and how many of its forwards are in shards already.
            prompts: the number of each row's prompt.
            first: the column of each row's first real token.
            fixed: [batch, position] of the run where the positions do not change, else None.
            width: columns of prompts and new tokens; a canvas of whole blocks may have more.
        """
        self._batch, self._done = begin.batch, begin.steps
        self._prompts, self._first, self._fixed, self._width = prompts, first, fixed, width
        self._known = None
        self._forget(0)

    def know(self, state: StepState, ids: TokenIds) -> None:
        """What the batch's only forward is and reads, on the processor: no device is asked for it then."""
        self._known = state, ids

    def begin(self, state: StepState, ids: TokenIds) -> None:
        """A forward begins.

        Args:
            state: what is known of it.
            ids: what it reads; under guidance both halves.
        """
        self._hand_on(Mark(self._batch, self._begun))
        self._forget(self._begun + 1)
        self._state, self._ids = self._known or (state, ids)

    def take(self, op: Capture, value: Tensor, spot: Spot) -> None:
        """Copy the chosen rows of a value.

        Args:
            op: which asks for it.
            value: [batch, position, ...].
            spot: where.
        """
        if self._begun <= self._done:
            return
        if self._places is None:
            self._choose()
        if self._index.device != value.device:
            self._index = sent(self._index, value.device)
        rows = value.detach()[: len(spot.state.group.rows)].flatten(0, 1).index_select(0, self._index)
        rows = rows if op.dtype is None else rows.to(op.dtype)
        self._values[hook_name(spot.point, spot.layer)] = self._off_device(rows)

    def end(self) -> None:
        """The batch is over."""
        self._hand_on(Mark(self._batch + 1))
        self._forget(0)

    def _forget(self, begun: int) -> None:
        self._begun = begun
        self._places: Places | None = None
        self._values: dict[str, Tensor] = {}

    def _choose(self) -> None:
        """The rows that are wanted of this forward."""
        state, ids = self._state, self._ids
        width = state.real.shape[-1]
        if state.window is not None and ids.shape[-1] != width:
            ids = state.window.take(ids)
        self._index = self._wanted(state).flatten().nonzero()[:, 0]
        there = self._index.cpu()
        rows = there // width
        own = torch.tensor(state.group.rows)[rows]
        share = torch.tensor(state.noise or [torch.nan] * len(state.group.rows), dtype=torch.float64)
        self._places = Places(
            prompt=self._prompts[own].int(),
            step=torch.full_like(rows, state.step, dtype=torch.int32),
            position=(self._stands(state, there) - self._first[own]).int(),
            token=ids.flatten()[self._index].cpu().int(),
            state=state.state.flatten()[self._index].cpu().to(torch.int8),
            noise=share[rows],
        )

    def _stands(self, state: StepState, there: Int[Tensor, " place"]) -> Int[Tensor, " place"]:
        """The columns of the whole batch that places of a forward are in."""
        if state.window is not None:
            return state.window.index.flatten()[self._index].cpu() + state.group.offset
        return there % state.real.shape[-1] + state.full_columns.start

    def _wanted(self, state: StepState) -> TokenMask:
        """[batch, position]: measured, chosen, and not computed by an earlier forward."""
        mask, columns = state.state >= 0, (state.whole or state).full_columns
        if state.window is not None:
            stands = state.window.index + state.group.offset
            mask &= stands < self._width
            # Of rows that compute unlike numbers of columns some have their first one again.
            mask[:, 1:] &= stands[:, 1:] != stands[:, :1]
        elif columns.stop > self._width:
            mask[:, self._width - columns.start :] = False
        fixed = self._fixed
        if fixed is not None and columns.stop > fixed.shape[-1]:
            fixed = torch.nn.functional.pad(fixed, (0, columns.stop - fixed.shape[-1]))
        chosen = step_mask(self._tokens, fixed, state)
        if chosen is not None:
            mask &= chosen.to(mask.device)
        if state.fresh > state.columns.start:
            mask[:, : state.fresh - state.columns.start] = False
        return mask

    def _off_device(self, rows: Tensor) -> Tensor:
        if not rows.is_cuda:
            return rows
        side = self._sides.setdefault(rows.device, torch.cuda.Stream(rows.device))
        side.wait_stream(torch.cuda.current_stream(rows.device))
        with torch.cuda.stream(side):
            kept = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            kept.copy_(rows, non_blocking=True)
        # The rows live until they are copied, though nothing of the model's own stream holds them.
        rows.record_stream(side)
        return kept

    def _hand_on(self, mark: Mark) -> None:
        """Deliver the rows of the forward that is over."""
        if self._places is not None:
            self._deliver(Part(mark, self._places, self._values, tuple(map(_event, self._sides.values()))))


def _event(side: Any) -> Any:
    """What happens when all that was asked of a stream of CUDA so far is done."""
    event = torch.cuda.Event()
    event.record(side)
    return event

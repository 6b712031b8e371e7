"""Copies of what measures read, gathered over consecutive layers, so that a step costs a few operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import POINTS
from dlens.measures.base.measure import Visit
from dlens.tracing.step.program import MeasureGroup, Spot
from dlens.tracing.step.state import StepState

__all__ = ["SLAB_BYTES", "Slab"]

Deliver = Callable[[MeasureGroup, Visit], None]

SLAB_BYTES = 2**27
"""The most that the copies of one hook point take; further layers come in a visit of their own."""

_STREAM = "stream"


@final
class Slab:
    """Consecutive layers of one step, copied as the forward reaches them: live values may be edited later.

    What leaves a block mostly enters the next one as it is. It is then copied once, into a buffer of one
    value more than there are layers: `resid_pre` is all of it but the last, `resid_post` all but the first.
    Where something writes between two blocks the slab ends, and another begins.

    Args:
        group: whose points are copied.
        n_layers: depth of the model.
        device: where the copies are kept.
        deliver: gets the visits.
    """

    def __init__(self, group: MeasureGroup, n_layers: int, device: torch.device, deliver: Deliver) -> None:
        self.group = group
        self._n_layers = n_layers
        self._device = device
        self._deliver = deliver
        self._joined = {"resid_pre", "resid_post"} <= group.points
        self._buffers: dict[str, Tensor] = {}
        self._state: StepState | None = None
        self._first = 0
        self._skipped: list[Tensor | None] = []
        self._left: tuple[Tensor, int] | None = None
        self._carried: dict[Any, Any] = {}

    def put(self, value: Tensor, spot: Spot) -> None:
        """Copy what a layer has at a point.

        Args:
            value: [batch, ...], both halves under guidance.
            spot: where; its state is one object all along a step.
        """
        point, layer, state = spot.point, spot.layer, spot.state
        assert layer is not None
        if state is not self._state:
            self._state, self._first, self._skipped, self._left, self._carried = state, layer, [], None, {}
        if point == "resid_pre" and self._joined and self._skipped:
            if self._is_what_left(value):
                return
            self._hand_on()
        own = value if state.halves == 1 else value[: len(value) // state.halves]
        # Measures know a cached step by the positions that count: all else is where it is without a cache.
        self._copy(
            point, own if state.window is None else state.window.spread(own, POINTS[point].axes.index("position"))
        )
        if point == "resid_post":
            # Inference tensors do not count writes.
            self._left = None if value.is_inference() else (value, value._version)

    def close(self, skipped: Tensor | None) -> None:
        """A layer is complete.

        Args:
            skipped: [batch], where its block did not act; None nowhere.
        """
        self._skipped.append(skipped)
        full = any(len(self._skipped) >= len(buffer) - (key == _STREAM) for key, buffer in self._buffers.items())
        if full or self._first + len(self._skipped) == self._n_layers:
            self._hand_on()

    def _copy(self, point: str, value: Tensor) -> None:
        joined = self._joined and point in ("resid_pre", "resid_post")
        key = _STREAM if joined else point
        slot = len(self._skipped) + (joined and point == "resid_post")
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape[1:] != value.shape:
            # The layers of a model with sliding caches have unlike numbers of keys.
            one = "position_b" in POINTS[point].axes
            room = 1 if one else max(1, min(self._n_layers, SLAB_BYTES // value.nbytes))
            buffer = torch.empty((room + joined, *value.shape), dtype=value.dtype, device=self._device)
        elif buffer.dtype != value.dtype:
            buffer = buffer.to(torch.promote_types(buffer.dtype, value.dtype))
        buffer[slot].copy_(value)
        self._buffers[key] = buffer

    def _is_what_left(self, value: Tensor) -> bool:
        """Whether a tensor is the one that left the last block, and unwritten since."""
        return self._left is not None and self._left[0] is value and self._left[1] == value._version

    def _hand_on(self) -> None:
        assert self._state is not None
        whole = self._state.whole or self._state
        n = len(self._skipped)
        values = {p: self._buffers[p][:n] for p in self.group.points if p in self._buffers}
        if self._joined:
            stream = self._buffers[_STREAM]
            values |= {"resid_pre": stream[:n], "resid_post": stream[1 : n + 1]}
        visit = Visit(
            step=self._state.step,
            layers=range(self._first, self._first + n),
            values=values,
            cells=self._state.cells,
            skipped=_stacked(self._skipped, self._state),
            last=self._first + n == self._n_layers,
            carried=self._carried,
            rows=whole.group.rows,
            columns=range(*whole.full_columns.indices(whole.full_columns.stop)),
            keys=None if self._state.whole is None else whole.state,
        )
        self._deliver(self.group, visit)
        self._first, self._skipped, self._left = self._first + n, [], None


def _stacked(skipped: list[Tensor | None], state: StepState) -> Tensor | None:
    """[layer, batch]; None where nothing was skipped."""
    if all(rows is None for rows in skipped):
        return None
    none = torch.zeros_like(state.real[:, 0])
    return torch.stack([none if rows is None else rows for rows in skipped])

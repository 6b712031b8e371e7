"""Which columns of a canvas a step computes: the same run of them in every row, or each row's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenMask

__all__ = ["Window", "window_of"]


@final
@dataclass(frozen=True, eq=False)
class Window:
    """The columns that a step computes, some of those of a canvas.

    Args:
        index: their numbers, in rising order; a row that computes fewer than others has its first one again.
        width: columns of the canvas.
        span: the columns, where they are one run of them, the same in every row; None elsewhere.
    """

    index: Int[Tensor, "batch column"]
    width: int
    span: slice | None

    def take(self, value: Tensor, axis: int = 1) -> Tensor:
        """The columns of the window of what has one entry for each column of the canvas.

        Args:
            value: [batch, ...] with the canvas's columns along an axis; the halves of guidance one after the other.
            axis: which.
        """
        moved = value.movedim(axis, 1)
        taken = moved[:, self.span] if self.span is not None else moved[self._at(len(value))]
        return taken.movedim(1, axis)

    def write(self, into: Tensor, value: Tensor, axis: int = 1) -> None:
        """Write one entry for each column of the window to where it is in the canvas, in place."""
        moved, new = into.movedim(axis, 1), value.movedim(axis, 1)
        if self.span is not None:
            moved[:, self.span] = new
        else:
            moved[self._at(len(value))] = new

    def spread(self, value: Tensor, axis: int = 1, fill: float = 0.0) -> Tensor:
        """What has one entry for each column of the window, as wide as the canvas; `fill` at the other columns."""
        size = list(value.shape)
        size[axis] = self.width
        wide = value.new_full(size, fill)
        self.write(wide, value, axis)
        return wide

    def find(self, columns: Int[Tensor, "batch column"]) -> Int[Tensor, "batch column"]:
        """Where in the window columns of the canvas are; anywhere, for those that it leaves out.

        Examples:
            >>> window_of(torch.tensor([[False, True, False, True]])).find(torch.tensor([[3, 1]])).tolist()
            [[1, 0]]
        """
        if self.span is not None:
            return (columns - self.span.start).clamp(0, self.index.shape[1] - 1)
        numbers = torch.arange(self.index.shape[1], device=columns.device).expand_as(self.index)
        return torch.zeros_like(self.computed, dtype=torch.long).scatter_(1, self.index, numbers).gather(1, columns)

    @cached_property
    def computed(self) -> TokenMask:
        """[batch, position], which columns of the canvas are in the window."""
        none = torch.zeros(len(self.index), self.width, dtype=torch.bool, device=self.index.device)
        return none.scatter_(1, self.index, True)

    def _at(self, rows: int) -> tuple[Tensor, Tensor]:
        """Rows and columns as an index of [batch, position, ...]."""
        index = self.index.repeat(rows // len(self.index), 1)
        return torch.arange(rows, device=index.device)[:, None], index


def window_of(chosen: TokenMask) -> Window:
    """The window of some columns, at least one in each row.

    Examples:
        >>> window = window_of(torch.tensor([[False, True, True, False], [False, True, True, False]]))
        >>> window.span, window.index.tolist()
        (slice(1, 3, None), [[1, 2], [1, 2]])
        >>> window_of(torch.tensor([[True, False, True], [False, True, False]])).index.tolist()
        [[0, 2], [1, 1]]
    """
    counts = chosen.sum(1)
    order = (~chosen).int().argsort(dim=1, stable=True)[:, : int(counts.max())]
    numbers = torch.arange(order.shape[1], device=order.device)
    index = torch.where(numbers < counts[:, None], order, order[:, :1])
    start = int(index[0, 0])
    together = bool((index == start + numbers).all())
    return Window(index, chosen.shape[1], slice(start, start + index.shape[1]) if together else None)

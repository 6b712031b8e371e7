"""Sums over the positions of each (noise, state) cell, where some values may not be finite."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import STATES

__all__ = ["add_by_cell", "cell_of", "mean_of"]


def cell_of(noise: Int[Tensor, " batch"], state: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """The cell of each position; -1 where nothing is measured.

    Examples:
        >>> cell_of(torch.tensor([2]), torch.tensor([[-1, 0, 1]])).tolist()
        [[-1, 6, 7]]
    """
    return torch.where(state < 0, -1, noise[:, None] * len(STATES) + state)


def add_by_cell(total: Float[Tensor, "cell layer"], values: Float[Tensor, "layer n"], cell: Int[Tensor, " n"]) -> None:
    """Add every row to the sum of its cell; those of cell -1 count nothing, even where they are NaN."""
    counted = torch.where(cell >= 0, values, 0).T.to(total)
    total.index_add_(0, cell.clamp(min=0).to(total.device), counted)


def mean_of(total: Float[Tensor, "*sums"], n: Tensor) -> Float[Tensor, "*sums"]:
    """Mean from a sum and a count; NaN where nothing was counted."""
    return torch.where(n > 0, total / n, torch.nan)

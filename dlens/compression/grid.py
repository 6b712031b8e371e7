"""The levels that a quantised weight can have: a scale and a zero for each group of columns of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Grid", "grid_of", "round_to"]

# Rows of zeros get a scale that divides.
_LEAST = 1e-10


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """The levels of each row: scale x (q - zero) with q from 0 to 2^bits - 1.

    Args:
        scale: the distance of two levels.
        zero: the level that is 0.
        bits: levels are 2^bits.
    """

    scale: Float[Tensor, "row 1"]
    zero: Float[Tensor, "row 1"]
    bits: int


def grid_of(weights: Float[Tensor, "row column"], bits: int, symmetric: bool) -> Grid:
    """The levels for the weights of a group.

    Symmetric: scale = 2 max|w| / (2^bits - 1), zero = 2^bits / 2, as the published code of arXiv 2605.06366 and
    GPTQModel have it: the largest weight lies half a step beyond the last level where it is positive. Otherwise the
    least and the largest weight (and zero) are levels, as in GPTQ's code (Frantar et al., arXiv 2210.17323).

    Args:
        weights: those that share levels, a row each.
        bits: levels are 2^bits.
        symmetric: which of both.

    Examples:
        >>> grid = grid_of(torch.tensor([[-1.0, 0.5, 3.0]]), 2, symmetric=False)
        >>> float(grid.scale), float(grid.zero)
        (1.333..., 1.0)
    """
    top = 2**bits - 1
    if symmetric:
        largest = weights.abs().amax(1, keepdim=True).clamp(min=_LEAST)
        return Grid(2.0 * largest / top, torch.full_like(largest, (top + 1) / 2), bits)
    low, high = weights.amin(1, keepdim=True).clamp(max=0), weights.amax(1, keepdim=True).clamp(min=0)
    scale = ((high - low) / top).clamp(min=_LEAST)
    return Grid(scale, torch.round(-low / scale), bits)


def round_to(weights: Float[Tensor, "row column"], grid: Grid) -> Float[Tensor, "row column"]:
    """Every weight at its nearest level.

    Examples:
        >>> weights = torch.tensor([[-1.0, 0.5, 3.0]])
        >>> round_to(weights, grid_of(weights, 2, symmetric=False)).tolist()[0]
        [-1.333..., 0.0, 2.666...]
    """
    levels = torch.clamp(torch.round(weights / grid.scale) + grid.zero, 0, 2**grid.bits - 1)
    return grid.scale * (levels - grid.zero)

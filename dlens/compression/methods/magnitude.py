"""Magnitude pruning: the smallest weights of a matrix go."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.compression.methods.method import Ask, Inputs, Weight

__all__ = ["lowest", "magnitude"]


def magnitude(weight: Weight, inputs: Inputs | None, ask: Ask) -> Weight:
    """The matrix without its smallest weights, all rows together; of equal ones the first in row order go.

    Examples:
        >>> magnitude(torch.tensor([[1.0, -0.1], [2.0, 3.0]]), None, Ask(sparsity=0.5)).tolist()
        [[0.0, 0.0], [2.0, 3.0]]
    """
    scores = weight.abs().float()
    scores = scores if ask.kept is None else scores.masked_fill(ask.kept, torch.inf)
    return weight.masked_fill(lowest(scores.reshape(1, -1), ask.sparsity).reshape(weight.shape), 0)


def lowest(scores: Float[Tensor, "row column"], share: float) -> Bool[Tensor, "row column"]:
    """Which scores of each row are the lowest: that share of the finite ones, rounded down; of equal ones the first.

    Examples:
        >>> lowest(torch.tensor([[3.0, 1.0, 1.0, 1.0]]), 0.5).tolist()
        [[False, True, True, False]]
    """
    count = (scores.isfinite().sum(1, keepdim=True) * share).long()
    chosen = torch.arange(scores.shape[1], device=scores.device) < count
    order = torch.sort(scores, dim=-1, stable=True).indices
    return torch.zeros_like(chosen).scatter_(1, order, chosen)

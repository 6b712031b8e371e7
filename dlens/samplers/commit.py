"""Committing guesses to the canvas."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask

__all__ = ["candidates", "commit", "most_confident"]


def candidates(
    canvas: TokenIds, generated: TokenMask, columns: Int[Tensor, " column"], mask: int
) -> Bool[Tensor, "batch column"]:
    """Which of these columns are still to be filled, per row."""
    return (canvas[:, columns] == mask) & generated[:, columns]


def most_confident(
    confidence: Float64[Tensor, "batch column"], open: Bool[Tensor, "batch column"], counts: Int[Tensor, " batch"]
) -> Bool[Tensor, "batch column"]:
    """The `counts` most confident candidates of each row.

    Among equal confidences the leftmost comes first, on every device; columns that are not
    candidates are never chosen, however large the count.

    Examples:
        >>> confidence = torch.tensor([[0.5, 0.9, 0.5]], dtype=torch.float64)
        >>> most_confident(confidence, torch.tensor([[True, True, True]]), torch.tensor([2])).tolist()
        [[True, True, False]]
    """
    ranks = rank(confidence, open)
    return open & (ranks < counts[:, None])


def rank(
    confidence: Float64[Tensor, "batch column"], open: Bool[Tensor, "batch column"]
) -> Int[Tensor, "batch column"]:
    """The place of each candidate in its row, from 0 for the most confident."""
    lowest = torch.finfo(confidence.dtype).min
    keys = torch.where(open, confidence.clamp(min=lowest), -torch.inf)
    order = keys.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def commit(
    canvas: TokenIds,
    columns: Int[Tensor, " column"],
    chosen: Bool[Tensor, "batch column"],
    tokens: Int[Tensor, "batch column"],
) -> TokenIds:
    """A new canvas with the chosen tokens written into it."""
    filled = canvas.clone()
    filled[:, columns] = torch.where(chosen, tokens, canvas[:, columns])
    return filled

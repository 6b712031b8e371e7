"""LLaDA's draws: how many tokens of a continuation are masked in each, and which."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlens.findings.scores.batches import rng

__all__ = ["draw_counts", "draw_masks", "own_seed"]


def own_seed(seed: int, context: Sequence[int], continuation: Sequence[int]) -> int:
    """The seed of one continuation: by what it is, so that neither order nor batches change its draws.

    Examples:
        >>> own_seed(0, [5, 6], [7]) == own_seed(0, (5, 6), (7,)) != own_seed(1, [5, 6], [7])
        True
    """
    return random.Random(f"{seed} {list(context)} {list(continuation)}").getrandbits(63)


def draw_masks(length: int, draws: int, seed: int) -> Bool[Tensor, "draw token"]:
    """Which tokens of a continuation are masks, draw by draw.

    The first count is uniform on 1 to `length`; the others follow at even distances, modulo the length. Each draw masks
    exactly so many tokens, at places of its own.

    Args:
        length: tokens of the continuation.
        draws: how many times it is masked.
        seed: of the draws.

    Source: LLaDA (arXiv 2502.09992), appendix B.5, as in its code `eval_llada.py`, there once for each mini-batch.

    Examples:
        >>> masks = draw_masks(length=4, draws=4, seed=0)
        >>> masks.shape, sorted(masks.sum(-1).tolist())
        (torch.Size([4, 4]), [1, 2, 3, 4])
    """
    generator = rng(seed)
    first = int(torch.randint(1, length + 1, (), generator=generator))
    counts = draw_counts(first, length, draws).tolist()
    masks = torch.zeros(draws, length, dtype=torch.bool)
    for row, count in zip(masks, counts, strict=True):
        row |= (torch.arange(length) < count)[torch.randperm(length, generator=generator)]
    return masks


def draw_counts(first: int, length: int, draws: int) -> Int[Tensor, " draw"]:
    """How many tokens each draw masks, from the first count on.

    Examples:
        >>> draw_counts(first=3, length=4, draws=8).tolist()
        [3, 4, 4, 4, 1, 2, 2, 2]
    """
    last = first + (draws - 1) * (length / draws)
    even = torch.linspace(float(first), last, steps=draws).round().long()
    return (even - 1) % length + 1

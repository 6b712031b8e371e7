"""Text as token ids, masked where asked, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import floor
from typing import Any, TypeVar

import torch

from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.tracing.planning.inputs import as_batch

__all__ = ["batched", "length_batches", "mask_share", "masked_rows", "rng", "token_rows"]

T = TypeVar("T")


def token_rows(model: Model, texts: Any) -> list[list[int]]:
    """Prompts of any form that `Trace.forward` takes, as one list of token ids each."""
    batch = as_batch(model, texts)
    return [row[real].tolist() for row, real in zip(batch.ids, batch.real, strict=True)]


def batched(rows: Sequence[T], batch_size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of a sequence.

    Raises:
        ValueError: the batch size is not positive.

    Examples:
        >>> list(batched([1, 2, 3], 2))
        [[1, 2], [3]]
    """
    if as_index(batch_size, "batch_size") < 1:
        raise ValueError(f"batch_size={batch_size}; expected at least 1, the number of prompts a forward; give 8")
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def length_batches(model: Model, rows: Sequence[Sequence[int]], batch_size: int) -> list[Sequence[int]]:
    """Indices of rows of similar length, longest first, so that what does not fit is refused before anything else runs.

    A model that does not hide padding gets rows of one length at a time.

    Examples:
        >>> import dlens
        >>> length_batches(dlens.load("trio/ar"), [[5], [5, 6, 7], [5, 6]], 2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    if model.honours_padding:
        return list(batched(order, batch_size))
    return [part for _, same in groupby(order, lambda i: len(rows[i])) for part in batched(list(same), batch_size)]


def rng(seed: int) -> torch.Generator:
    """A source of random numbers of its own, on the CPU, so that every device draws the same.

    Raises:
        ValueError: no seed that every source takes.
    """
    return torch.Generator().manual_seed(as_seed(seed))


def mask_share(ids: Sequence[int], share: float, mask_token_id: int, generator: torch.Generator) -> list[int]:
    """Token ids with a share of the positions, rounded down and chosen at random, turned into masks.

    Examples:
        >>> sum(i == 9 for i in mask_share([1, 2, 3, 4], 0.5, 9, rng(0)))
        2
    """
    chosen = torch.randperm(len(ids), generator=generator)[: floor(share * len(ids))]
    masked = torch.tensor(ids)
    masked[chosen] = mask_token_id
    return masked.tolist()


def masked_rows(
    rows: Sequence[Sequence[int]], rates: Sequence[float], mask_token_id: int, generator: torch.Generator
) -> list[list[int]]:
    """Every row with each share of its positions turned into masks: all rows at the first rate, then at the next.

    Examples:
        >>> [row.count(9) for row in masked_rows([[1, 2], [3, 4]], (0.5, 1.0), 9, rng(0))]
        [1, 1, 2, 2]
    """
    return [mask_share(row, rate, mask_token_id, generator) for rate in rates for row in rows]

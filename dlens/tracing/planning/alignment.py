"""Align the logits of a diffusion model with the tokens that they predict."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import Logits, TokenMask

__all__ = ["aligned", "at_columns", "source_columns"]


def aligned(
    logits: Logits, shift: int, real: TokenMask, columns: Tensor | None = None
) -> Float[Tensor, "batch column vocab"]:
    """Move logits so that those at a position predict the token there.

    A row's first real token has nothing before it and keeps its own logits, as in Dream's sampler.

    Args:
        logits: [batch, position, vocab] as the module gives them.
        shift: of the family.
        real: [batch, position], what is not padding.
        columns: [column] or [batch, column], which are wanted; None is all of them, in their order.
    """
    if columns is not None:
        return at_columns(logits, source_columns(columns, shift, real))
    if shift == 0:
        return logits
    moved = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    first = real & (real.long().cumsum(-1) == 1)
    return torch.where(first[..., None], logits, moved)


def source_columns(columns: Tensor, shift: int, real: TokenMask) -> Tensor:
    """The columns at which the module gives what predicts the tokens of some columns.

    Examples:
        >>> real = torch.tensor([[True, True, True], [False, True, True]])
        >>> source_columns(torch.tensor([1, 2]), 1, real).tolist()
        [[0, 1], [1, 1]]
    """
    if shift == 0:
        return columns
    columns = columns.expand(len(real), -1)
    padding = real.shape[1] - real.sum(-1, keepdim=True)
    return torch.where(columns == padding, columns, (columns - shift).clamp(min=0))


def at_columns(value: Tensor, columns: Tensor | None) -> Tensor:
    """The columns of a value [batch, position, ...]: [batch, column, ...].

    Args:
        value: one entry a position.
        columns: [column] or [batch, column]; None is all of them, in their order.

    Examples:
        >>> at_columns(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[0], [2]])).tolist()
        [[1], [6]]
    """
    if columns is None:
        return value
    if columns.ndim == 1:
        return value[:, columns]
    return value[torch.arange(len(value), device=value.device)[:, None], columns]

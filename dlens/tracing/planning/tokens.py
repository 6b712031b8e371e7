"""Masks over the positions of a run: what `tokens=` names, and what follows an end."""

from __future__ import annotations

import torch
from torch import Tensor

from dlens.axes import TokenMask
from dlens.ops.base.given import as_ints
from dlens.ops.base.tokens import TokenSpec

__all__ = ["after", "fixed_mask"]


def fixed_mask(tokens: TokenSpec, real: TokenMask, strict: bool = True) -> Tensor | None:
    """The mask of a selection that does not change over a run; None for the words that do.

    Args:
        tokens: as in `Edit`.
        real: [batch, position] over the whole run.
        strict: whether to refuse positions that no row has.

    Raises:
        ValueError, IndexError: a tensor of another shape, a position beyond every row, no position at all.
    """
    if isinstance(tokens, str):
        return None
    if isinstance(tokens, Tensor):
        if tuple(tokens.shape) != tuple(real.shape):
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)}; expected {tuple(real.shape)}, [batch, position] over the "
                f"whole run, prompt and new tokens, left-padded; see record.tokens for the layout"
            )
        mask = tokens.to(real.device) & real
    else:
        selection = tokens if isinstance(tokens, slice) else as_ints(tokens, "position")
        mask = torch.zeros_like(real)
        for row, length in enumerate(real.sum(-1).tolist()):
            first = real.shape[-1] - length
            mask[row, [first + position for position in _positions(selection, length)]] = True
        if strict and not isinstance(selection, slice):
            _refuse_beyond(selection, real)
    if strict and not mask.any():
        raise ValueError(
            f"tokens={'a mask' if isinstance(tokens, Tensor) else tokens!r} selects no token; expected at least one in "
            f"{len(real)} rows of at most {int(real.sum(-1).max())}; name other positions"
        )
    return mask


def _positions(tokens: slice | tuple[int, ...], length: int) -> list[int]:
    if isinstance(tokens, slice):
        return list(range(length)[tokens])
    return [position % length for position in tokens if -length <= position < length]


def _refuse_beyond(positions: tuple[int, ...], real: TokenMask) -> None:
    longest = int(real.sum(-1).max())
    beyond = [position for position in positions if not -longest <= position < longest]
    if beyond:
        raise IndexError(
            f"tokens names position {beyond[0]}; expected {-longest} to {longest - 1}, counted from each row's first "
            f"real token, as the longest row of the run has {longest}; give smaller numbers"
        )


def after(ends: TokenMask) -> TokenMask:
    """[batch, position], what follows the first of the marked positions in each row.

    Examples:
        >>> after(torch.tensor([[False, True, False, True]])).tolist()
        [[False, False, True, True]]
    """
    return ends.cumsum(-1) > ends

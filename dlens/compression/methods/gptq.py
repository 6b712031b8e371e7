"""GPTQ: columns are rounded one after another, and the rest of the row makes up for the error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.compression.grid import Grid, grid_of, round_to
from dlens.compression.methods.hessian import Begin, Column, compensated, free_columns, in_parts
from dlens.compression.methods.method import Ask, Inputs, Weight

__all__ = ["gptq"]


def gptq(weight: Weight, inputs: Inputs | None, ask: Ask) -> Weight:
    """The matrix on its grid, with the least error of its outputs column by column (Frantar et al., arXiv 2210.17323).

    With `act_order` the columns of largest input come first, and the levels of all groups are found before, from the
    weights as they are (the paper's code with --act-order --static-groups, and llmcompressor). Otherwise columns go
    from left to right, and the levels of a group are found when its first column is reached, from the weights as
    they stand then.

    Examples:
        >>> inputs = Inputs(torch.ones(4), torch.eye(4))
        >>> weight = torch.tensor([[1.0, 0.4, -0.9, 0.1]])
        >>> from dlens.compression.methods.rtn import rtn
        >>> ask = Ask(bits=2, group=2)
        >>> torch.allclose(gptq(weight, inputs, ask), rtn(weight, None, ask))  # nothing to make up for
        True
    """
    assert inputs is not None and inputs.hessian is not None
    exact, free = weight.to(inputs.hessian.dtype), free_columns(weight, ask.kept)
    width = ask.group or weight.shape[1]
    if ask.act_order:
        order = free[inputs.hessian.diagonal()[free].argsort(descending=True, stable=True)]
        sizes, begin = in_parts(len(order)), _static(exact, ask, width, order.tolist())
    else:
        order, sizes = free, [size for size in (free // width).bincount().tolist() if size]
        begin = _fresh(ask)
    new = compensated(weight, inputs, order, sizes, begin)
    return new if ask.kept is None else torch.where(ask.kept, weight, new)


def _static(weight: Weight, ask: Ask, width: int, order: Sequence[int]) -> Begin:
    """Every column on the levels that its group had at first."""
    bits = ask.bits
    assert bits is not None
    free = weight if ask.kept is None else weight.masked_fill(ask.kept, 0)
    grids = [grid_of(part, bits, ask.symmetric) for part in free.split(width, dim=1)]

    def begin(part: Weight, diagonal: Float[Tensor, " part"], start: int) -> Column:
        return lambda old, i: _rounded(old, grids[order[start + i] // width])

    return begin


def _fresh(ask: Ask) -> Begin:
    """Every column on the levels of its group as it stands when it is reached."""
    bits = ask.bits
    assert bits is not None

    def begin(part: Weight, diagonal: Float[Tensor, " part"], start: int) -> Column:
        grid = grid_of(part, bits, ask.symmetric)
        return lambda old, i: _rounded(old, grid)

    return begin


def _rounded(old: Float[Tensor, " d_out"], grid: Grid) -> Float[Tensor, " d_out"]:
    return round_to(old[:, None], grid)[:, 0]

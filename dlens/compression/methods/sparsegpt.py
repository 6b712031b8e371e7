"""SparseGPT: weights go by what their loss costs once the others made up for it, and the others make up for it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.compression.methods.hessian import Column, compensated, free_columns, in_parts
from dlens.compression.methods.magnitude import lowest
from dlens.compression.methods.method import Ask, Inputs, Weight

__all__ = ["sparsegpt"]


def sparsegpt(weight: Weight, inputs: Inputs | None, ask: Ask) -> Weight:
    """The matrix pruned as in Frantar and Alistarh, arXiv 2301.00774, algorithm 1.

    In each part of 128 columns, all rows together, the weights of least w^2 / d^2 go, with d the diagonal of the
    factor of the inverse Hessian.

    Examples:
        >>> inputs = Inputs(torch.ones(2), torch.eye(2))
        >>> sparsegpt(torch.tensor([[2.0, 1.0]]), inputs, Ask(sparsity=0.5)).tolist()
        [[2.0, 0.0]]
    """

    order = free_columns(weight, ask.kept)

    def begin(part: Weight, diagonal: Float[Tensor, " part"], start: int) -> Column:
        scores = (part / diagonal) ** 2
        if ask.kept is not None:
            scores = scores.masked_fill(ask.kept[:, order[start : start + part.shape[1]]], torch.inf)
        gone = lowest(scores.reshape(1, -1), ask.sparsity).reshape(part.shape)

        def column(old: Float[Tensor, " d_out"], i: int) -> Float[Tensor, " d_out"]:
            return old.masked_fill(gone[:, i], 0)

        return column

    return compensated(weight, inputs, order, in_parts(len(order)), begin)

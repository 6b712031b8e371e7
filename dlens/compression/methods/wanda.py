"""Wanda: of each row the weights go whose size times the norm of their input is least."""

from __future__ import annotations

import torch

from dlens.compression.methods.magnitude import lowest
from dlens.compression.methods.method import Ask, Inputs, Weight

__all__ = ["scores_of", "wanda"]


def wanda(weight: Weight, inputs: Inputs | None, ask: Ask) -> Weight:
    """The matrix without the weights of least |w_ij| sqrt(mean x_j^2) in each row (Wanda, arXiv 2306.11695, eq. 1).

    Examples:
        >>> inputs = Inputs(torch.tensor([1.0, 100.0]))
        >>> wanda(torch.tensor([[2.0, 1.0]]), inputs, Ask(sparsity=0.5)).tolist()
        [[0.0, 1.0]]
    """
    assert inputs is not None
    scores = scores_of(weight, inputs)
    scores = scores if ask.kept is None else scores.masked_fill(ask.kept, torch.inf)
    return weight.masked_fill(lowest(scores, ask.sparsity), 0)


def scores_of(weight: Weight, inputs: Inputs) -> Weight:
    """How much each weight matters, by Wanda.

    Examples:
        >>> scores_of(torch.tensor([[2.0, -1.0]]), Inputs(torch.tensor([1.0, 100.0]))).tolist()
        [[2.0, 10.0]]
    """
    return weight.abs().float() * inputs.norms.sqrt()

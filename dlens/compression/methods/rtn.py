"""Round to nearest: every weight to the closest level of its group."""

from __future__ import annotations

import torch
from einops import rearrange

from dlens.compression.grid import grid_of, round_to
from dlens.compression.methods.method import Ask, Inputs, Weight

__all__ = ["rtn"]


def rtn(weight: Weight, inputs: Inputs | None, ask: Ask) -> Weight:
    """The matrix with every weight on the grid of its group.

    Examples:
        >>> rtn(torch.tensor([[1.0, 0.4, -0.9]]), None, Ask(bits=2)).tolist()[0]
        [0.6666..., 0.6666..., -0.6666...]
    """
    assert ask.bits is not None
    free = weight if ask.kept is None else weight.masked_fill(ask.kept, 0)
    columns = ask.group or weight.shape[1]
    groups = rearrange(free, "d_out (group column) -> (d_out group) column", column=columns)
    rounded = round_to(groups, grid_of(groups, ask.bits, ask.symmetric))
    found = rearrange(rounded, "(d_out group) column -> d_out (group column)", d_out=weight.shape[0])
    return found if ask.kept is None else torch.where(ask.kept, weight, found)

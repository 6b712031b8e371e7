"""The exact cache of block-causal attention: finished blocks are not computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from dlens.axes import TokenMask
from dlens.caches.cache import Cache, View

__all__ = ["Blocks"]


@final
@dataclass(frozen=True)
class Blocks(Cache):
    """A step computes from the first canvas block in which a token changed to the last that is asked for.

    No block attends to a later one, so that the logits are those of a run without a cache; docs/caches.md says where
    to the bit. A finished block is computed once more, with its last token, by the first step of the next.

    Source: Arriola et al. 2025, Block Diffusion, arXiv:2503.09573, section 3.1.

    Examples:
        >>> import torch
        >>> from dlens.caches import View
        >>> real = torch.ones(1, 8, dtype=torch.bool)
        >>> asked = torch.tensor([[False] * 4 + [True] * 2 + [False] * 2])
        >>> stale = torch.tensor([[False] * 3 + [True] * 5])
        >>> view = View(real, masked=asked, stale=stale, asked=asked, block=asked, age=0, block_length=2)
        >>> Blocks().columns(view)[0].long().tolist()
        [0, 0, 1, 1, 1, 1, 0, 0]
    """

    exact: ClassVar[bool] = True

    def check(self, block_length: int | None) -> None:
        if block_length is None:
            raise ValueError(
                "Blocks on a model in which every position attends to every other; expected block-causal attention, as "
                "a finished block changes with later ones otherwise; use dlens.caches.Dual, or cache='off'"
            )

    def columns(self, view: View) -> TokenMask | None:
        assert view.block_length is not None
        number = torch.div(view.real.cumsum(1) - 1, view.block_length, rounding_mode="floor")
        number = torch.where(view.real, number, -1)
        last = torch.where(view.asked, number, -1).amax(1, keepdim=True)
        needed = view.asked | view.stale & view.real & (number <= last)
        first = torch.where(needed, number, number.max() + 1).amin(1, keepdim=True)
        return view.real & (number >= first) & (number <= last)

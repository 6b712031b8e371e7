"""Fast-dLLM's prefix cache: what stands before the sampler's block is computed once a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dlens.axes import TokenMask
from dlens.caches.cache import Cache, View

__all__ = ["Prefix"]


@final
@dataclass(frozen=True)
class Prefix(Cache):
    """The first step of a block computes all; the others compute from the block's first column to the end.

    Source: Wu et al. 2025, Fast-dLLM, arXiv:2505.22618, section 3.2, and NVlabs/Fast-dLLM.

    Examples:
        >>> import dlens
        >>> sampler = dlens.samplers.LLaDA(block_length=4)
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 8, sampler=sampler, cache=Prefix())
        >>> record.computed.sum(-1)[:, 0].tolist()
        [12, 8, 8, 8, 12, 4, 4, 4]
    """

    def columns(self, view: View) -> TokenMask | None:
        return view.block.cumsum(1) > 0 if view.age else None

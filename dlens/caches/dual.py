"""Fast-dLLM's dual cache: all but the sampler's block is computed once a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dlens.axes import TokenMask
from dlens.caches.cache import Cache, View

__all__ = ["Dual"]


@final
@dataclass(frozen=True)
class Dual(Cache):
    """The first step of a block computes all; the others compute the block alone.

    Where the family's logits are shifted, the column before the block is computed too. The published code for Dream
    takes the block's first token from the first step instead.

    Source: Wu et al. 2025, Fast-dLLM, arXiv:2505.22618, section 3.2, and NVlabs/Fast-dLLM.

    Examples:
        >>> import dlens
        >>> sampler = dlens.samplers.LLaDA(block_length=4)
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 8, sampler=sampler, cache=Dual())
        >>> record.computed.sum(-1)[:, 0].tolist()
        [12, 4, 4, 4, 12, 4, 4, 4]
    """

    def columns(self, view: View) -> TokenMask | None:
        return view.block if view.age else None

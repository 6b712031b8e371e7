"""dKV-Cache: a token's keys and values are kept one step after it was decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from dlens.axes import TokenMask
from dlens.caches.cache import Cache, View
from dlens.checks import plain_fields, quoted, whole

__all__ = ["Delayed"]


@final
@dataclass(frozen=True)
class Delayed(Cache):
    """A step computes masks and the tokens decoded at the step before; now and then all is computed.

    The first two steps of a block compute all, and so does every step of it whose number `refresh` divides, counted
    from 0. At the others no decoded token has logits, so that a sampler edits none.

    Args:
        refresh: steps from one that computes all to the next.

    Source: Ma et al. 2025, dKV-Cache, arXiv:2505.15781, and horseee/dKV-Cache (its decode variant).

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 8, cache=Delayed(refresh=4))
        >>> record.computed.sum(-1)[:, 0].tolist()
        [12, 12, 7, 6, 12, 4, 3, 2]
    """

    refresh: int = 8
    decoded_too: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number = whole(self.refresh)
        if number is None or number < 1:
            raise ValueError(
                f"refresh={quoted(self.refresh)}; expected a whole number, 1 or more, the steps from one that computes "
                f"all to the next; give for example refresh=8"
            )
        plain_fields(self)

    def columns(self, view: View) -> TokenMask | None:
        if view.age < 2 or view.age % self.refresh == 0:
            return None
        return view.masked | view.stale

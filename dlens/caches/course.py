"""What a run with a cache has computed so far, and what its next step computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.caches.cache import Cache, View

__all__ = ["Course"]

_NONE = -1
"""In the place of a token: no keys and values are there yet."""


@final
@dataclass
class Course:
    """The course of one run; told of each step when it starts.

    Args:
        cache: the rule.
        real: [batch, position], what is not padding.
        block_length: of a model with block-causal attention, else None.

    Examples:
        >>> from dlens.caches import Dual
        >>> real = torch.ones(1, 4, dtype=torch.bool)
        >>> course = Course(Dual(), real)
        >>> canvas, masked = torch.tensor([[5, 6, 9, 9]]), torch.tensor([[False, False, True, True]])
        >>> course.step(canvas, masked, asked=masked, needed=masked) is None
        True
        >>> course.step(canvas, masked, asked=masked, needed=masked).tolist()
        [[False, False, True, True]]
    """

    cache: Cache
    real: TokenMask
    block_length: int | None = None
    _held: TokenIds = field(init=False)
    _block: Tensor | None = None
    _age: int = 0

    def __post_init__(self) -> None:
        self._held = torch.full(self.real.shape, _NONE, device=self.real.device)

    def step(self, canvas: TokenIds, masked: TokenMask, asked: TokenMask, needed: TokenMask) -> TokenMask | None:
        """The columns that a step computes, at least one in each row; None is all of them.

        Args:
            canvas: what goes into the step.
            masked: what is to be decoded and is still a mask.
            asked: the columns that the sampler reads, and those whose logits they have.
            needed: the same of those that are still masks.
        """
        first = self._block is None
        if self._block is None or bool((asked & ~self._block).any()):
            self._block, self._age = asked, 0
        stale = canvas != self._held
        view = View(self.real, masked, stale, asked, self._block, self._age, self.block_length)
        # Whatever the rule says: keys and values that were never computed would be read otherwise.
        chosen = None if first and not self.cache.exact else self.cache.columns(view)
        self._age += 1
        if chosen is not None:
            chosen = self._at_least(chosen | (asked if self.cache.decoded_too else needed))
        self._held = canvas.clone() if chosen is None else torch.where(chosen, canvas, self._held)
        return chosen

    def _at_least(self, chosen: TokenMask) -> TokenMask | None:
        """What is chosen, and the last column of a row of which nothing is; None where that is all."""
        last = torch.zeros_like(chosen)
        last[:, -1] = ~chosen.any(1)
        chosen = chosen | last
        return None if bool(chosen.all()) else chosen

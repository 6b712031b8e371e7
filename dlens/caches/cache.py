"""What a cache is: a rule that says which columns of a canvas a step computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from dlens.axes import TokenMask

__all__ = ["Cache", "Halves", "View"]


@dataclass(frozen=True)
class View:
    """What a cache decides from when a step starts: [batch, position] each.

    Args:
        real: what is not padding.
        masked: what is to be decoded and is still a mask.
        stale: what holds another token than when its keys and values were computed, or none yet.
        asked: the columns that the sampler reads: those of its block, and the one before where the family's logits are
            shifted.
        block: the columns asked for when the sampler's block began.
        age: steps since then; 0 at its first step.
        block_length: of a model with block-causal attention, else None.

    Examples:
        >>> import torch
        >>> from dlens.caches import Dual, Prefix
        >>> real = torch.ones(1, 6, dtype=torch.bool)
        >>> block = torch.tensor([[False, False, True, True, False, False]])
        >>> view = View(real, masked=block, stale=~real, asked=block, block=block, age=1, block_length=None)
        >>> Dual().columns(view)[0].long().tolist(), Prefix().columns(view)[0].long().tolist()
        ([0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1])
    """

    real: TokenMask
    masked: TokenMask
    stale: TokenMask
    asked: TokenMask
    block: TokenMask
    age: int
    block_length: int | None


@dataclass(frozen=True)
class Halves:
    """What the halves of each block compute at a step; what they add at the other columns is kept from earlier steps.

    The first block computes all.

    Args:
        prompt: whether the columns of the prompts are computed.
        response: whether those after them are.
        share: of the columns after the prompts, where these are not: those whose values moved most since they were
            kept.

    Examples:
        >>> from dlens.caches import Adaptive
        >>> Adaptive().halves(1)
        Halves(prompt=False, response=False, share=0.25)
    """

    prompt: bool
    response: bool
    share: float


@dataclass(frozen=True)
class Cache(ABC):
    """A rule that says which columns a step computes; the keys and values of the others are those of earlier steps.

    Attributes:
        exact: whether the logits are those of a run without it.
        decoded_too: whether all columns that the sampler reads are computed in any case; else those that are still
            masked, and the logits of the others are NaN where the rule leaves them out.

    Examples:
        A cache of one's own, that computes all at every other step of a block:

        >>> import dlens
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Alternating(Cache):
        ...     def columns(self, view):
        ...         return view.block if view.age % 2 else None
        >>> trace = dlens.trace("trio/diffusion")
        >>> Alternating().check(None), Alternating().halves(0)
        (None, None)
        >>> record = trace.generate("Once upon a time", 8, cache=Alternating())
        >>> record.computed.sum(-1)[:, 0].tolist()
        [12, 8, 12, 8, 12, 8, 12, 8]
    """

    exact: ClassVar[bool] = False
    decoded_too: ClassVar[bool] = True

    def check(self, block_length: int | None) -> None:
        """Refuse a model for which the rule means nothing, before anything is computed.

        Args:
            block_length: of its block-causal attention; None where every column attends to every other.

        Raises:
            ValueError: with what came, what was expected and the usual fix.
        """
        return

    def halves(self, step: int) -> Halves | None:
        """What the halves of each block compute at a step of the run, from 0; None is all columns of the step."""
        return None

    @abstractmethod
    def columns(self, view: View) -> TokenMask | None:
        """The columns that a step computes; None is all of them."""

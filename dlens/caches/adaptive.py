"""dLLM-Cache: every block computes again what moved most, and adds what it added before elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dlens.axes import TokenMask
from dlens.caches.cache import Cache, Halves, View
from dlens.checks import finite, plain_fields, quoted, whole

__all__ = ["Adaptive"]


@final
@dataclass(frozen=True)
class Adaptive(Cache):
    """Prompts are computed every `prompt_every` steps, new tokens every `response_every`; in between a share of these.

    Each block chooses for itself: it makes the values of all new tokens, and computes again those that are least alike,
    by their cosine, to the values it has kept. Keys, values, and what attention and MLP add to the stream are kept. The
    first block always computes all. The stream has all columns at every step: every position counts as computed.

    Args:
        prompt_every, response_every: steps from one that computes them to the next, counted from the first of the run.
        share: of the new tokens that are computed in between, 0 to 1; at least one is.

    Source: Liu et al. 2025, dLLM-Cache, arXiv:2506.06295, and maomaocun/dLLM-cache.

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 8, cache=Adaptive(response_every=4))
        >>> [Adaptive(response_every=4).halves(step).response for step in range(5)], bool(record.computed.all())
        ([True, False, False, False, True], True)
    """

    prompt_every: int = 50
    response_every: int = 2
    share: float | int = 0.25

    def __post_init__(self) -> None:
        for name in ("prompt_every", "response_every"):
            number = whole(getattr(self, name))
            if number is None or number < 1:
                raise ValueError(
                    f"{name}={quoted(getattr(self, name))}; expected a whole number, 1 or more, the steps from one "
                    f"that computes all to the next; give for example {name}=2"
                )
        share = finite(self.share)
        if share is None or not 0 <= share <= 1:
            raise ValueError(
                f"share={quoted(self.share)}; expected 0 to 1, the share of new tokens computed at each step; give for "
                f"example share=0.25"
            )
        plain_fields(self)

    def columns(self, view: View) -> TokenMask | None:
        return None

    def halves(self, step: int) -> Halves:
        return Halves(step % self.prompt_every == 0, step % self.response_every == 0, self.share)

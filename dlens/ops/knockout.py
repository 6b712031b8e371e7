"""Stop tokens of one kind from attending to tokens of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.target import Target
from dlens.ops.base.tokens import TokenSpec, check_tokens, token_words

__all__ = ["Knockout"]


@final
@dataclass(frozen=True, kw_only=True)
class Knockout(Edit):
    """Target tokens stop attending to source tokens; what is left of their attention adds up to 1 again.

    A target that is left with nothing to attend to takes nothing from attention. After Dissecting Recall of Factual
    Associations in Auto-Regressive Language Models (arXiv:2304.14767), which sets the scores to minus infinity.

    Args:
        source: the keys that are hidden.
        tokens: the queries that they are hidden from.
    """

    source: TokenSpec = "all"
    at: str = "attn_scores"

    def check(self, target: Target) -> None:
        super().check(target)
        check_tokens(self.source, target)

    def sources(self) -> TokenSpec:
        return self.source

    @property
    def replays(self) -> bool:
        return True

    def edit(self, value: Tensor, place: Place) -> Tensor:
        return torch.full_like(value, -torch.inf)

    def words(self) -> str:
        return f"knock {token_words(self.source)} out of {self.where()}"

    def details(self) -> dict[str, Any]:
        return {"source": token_words(self.source)}

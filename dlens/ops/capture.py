"""Keep the values of a hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch

from dlens.ops.base.keep import Keep
from dlens.ops.base.op import Kept, Touch
from dlens.ops.base.target import Target
from dlens.ops.base.tokens import TokenSpec, check_tokens, token_words

__all__ = ["Capture"]


@final
@dataclass(frozen=True, kw_only=True)
class Capture(Keep):
    """The tensors of a point are kept in the record, as they are after the operations written before.

    Args:
        tokens: which positions; the others are NaN.
        dtype: what the values become; None leaves them as they are.
    """

    tokens: TokenSpec = "all"
    dtype: torch.dtype | None = None

    def check(self, target: Target) -> None:
        super().check(target)
        check_tokens(self.tokens, target)

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch(self.point, self.places(target), "keep"),)

    def selection(self) -> TokenSpec:
        return self.tokens

    @property
    def keeps_all(self) -> bool:
        """Whether it keeps every position."""
        return isinstance(self.tokens, str) and self.tokens == "all"

    def keeps(self) -> Kept:
        return Kept("record", self.key, "name all layers and steps in one capture")

    def words(self) -> str:
        tokens = "" if self.keeps_all else f" on {token_words(self.tokens)}"
        return f"capture {self.place_words()}{tokens}{f' as {self._type}' if self._type else ''}"

    def details(self) -> dict[str, Any]:
        tokens = {} if self.keeps_all else {"tokens": token_words(self.tokens)}
        return super().details() | tokens | ({"dtype": self._type} if self._type else {})

    @property
    def _type(self) -> str:
        return "" if self.dtype is None else str(self.dtype).removeprefix("torch.")

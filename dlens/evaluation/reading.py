"""Read off the logits of a forward how likely chosen tokens are, without a copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import Logits
from dlens.ops.base.edit import Edit, Place

__all__ = ["ReadTokens", "Wanted"]


@final
@dataclass(frozen=True)
class Wanted:
    """The tokens of one row whose likelihood is asked for.

    Args:
        columns: whose logits predict them, counted from the row's end: -1 is its last.
        tokens: their ids.
    """

    columns: Sequence[int]
    tokens: Sequence[int]


@final
@dataclass(frozen=True, kw_only=True)
class ReadTokens(Edit):
    """Reads how likely some tokens of each row are; changes nothing.

    Args:
        wanted: row by row.
        guidance: g of u + (g + 1)(c - u), where as many rows follow without their prompt; 0 is none.
        found: where the numbers go, see `numbers`.

    Examples:
        >>> import dlens
        >>> read = ReadTokens(wanted=(Wanted([-2, -1], [7, 8]),))
        >>> _ = dlens.trace("trio/ar").apply(read).forward([[5, 6, 7]])
        >>> read.numbers().shape
        torch.Size([1, 2])
    """

    at: str = "logits"
    wanted: tuple[Wanted, ...] = ()
    guidance: float = 0.0
    found: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def edit(self, value: Tensor, place: Place) -> Tensor:
        read = [self._row(value, row, wanted) for row, wanted in enumerate(self.wanted)]
        self.found.append(torch.stack(read))
        return value

    def _row(self, logits: Logits, row: int, wanted: Wanted) -> Float[Tensor, " number"]:
        columns = torch.tensor(wanted.columns, device=logits.device)
        tokens = torch.tensor(wanted.tokens, device=logits.device)
        scores = logits[row, columns].float()
        if self.guidance:
            alone = logits[row + len(self.wanted), columns].float()
            scores = alone + (self.guidance + 1) * (scores - alone)
        likely = scores.log_softmax(-1).gather(1, tokens[:, None])
        return torch.stack([likely.double().sum(), (scores.argmax(-1) == tokens).all().double()])

    def numbers(self) -> Float[Tensor, "row number"]:
        """Per row the log-probability of its tokens in nats, and 1 where each of them is the likeliest."""
        return torch.cat(self.found).cpu()

    def words(self) -> str:
        return f"read the likelihood of tokens in {len(self.wanted)} rows"

    def details(self) -> dict[str, Any]:
        return {"rows": len(self.wanted)}

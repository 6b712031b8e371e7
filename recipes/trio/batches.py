"""Which tokens a step sees: a function of the seed and the step alone, the same for every run."""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from recipes.trio.tokens import QUESTION, ROW

__all__ = ["Batches", "noise_of"]

# Some steps cut their rows, and take more of them, so that short texts are not strange to the models.
WIDTHS = (ROW, ROW // 2, ROW, ROW // 4, ROW, ROW // 2, ROW, ROW)


@final
class Batches:
    """Batches of a fixed number of tokens, from rows in an order that every pass draws anew.

    Args:
        path: train.npy, as `prepare` wrote it.
        tokens: of a batch; a multiple of 256.
        seed: of the order.
        device: where the rows are kept.
    """

    def __init__(self, path: Path, tokens: int, seed: int, device: torch.device) -> None:
        if tokens % ROW:
            raise ValueError(f"{tokens} tokens a step; expected a multiple of {ROW}, a row; give {ROW * 256}")
        # torch has few operations on uint16; as int16 the mark of a question is the sign.
        self.rows = torch.from_numpy(np.load(path).view(np.int16)).to(device)
        self._tokens, self._seed = tokens, seed
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, step: int) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
        """The tokens of a step, and which of them belong to the question of a problem."""
        width = WIDTHS[step % len(WIDTHS)]
        counts = [self._tokens // width for width in WIDTHS]
        cycles, place = divmod(step, len(WIDTHS))
        chosen = self._order(cycles * sum(counts) + sum(counts[:place]), counts[place])
        marked = self.rows[chosen][:, :width]
        return (marked & (QUESTION - 1)).long(), marked < 0

    def _order(self, first: int, n: int) -> Int[Tensor, " n"]:
        """Rows from a place of the endless sequence of passes."""
        parts: list[Tensor] = []
        while n > 0:
            number, place = divmod(first, len(self.rows))
            parts.append(self._pass_order(number)[place : place + n])
            first, n = first + len(parts[-1]), n - len(parts[-1])
        return torch.cat(parts)

    def _pass_order(self, number: int) -> Int[Tensor, " n"]:
        if number not in self._orders:
            generator = torch.Generator().manual_seed(1_000_003 * self._seed + number)
            self._orders[number] = torch.randperm(len(self.rows), generator=generator).to(self.rows.device)
        return self._orders[number]


def noise_of(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The source of the masks of a step, so that a run that resumes draws the same."""
    return torch.Generator(device).manual_seed((seed << 32) + step)

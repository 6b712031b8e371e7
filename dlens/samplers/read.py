"""Reading tokens and confidences off the logits: at the masked positions only, and in float64.

Float64 keeps apart the confidences that bf16 or float32 would round to a tie. The logits are
never edited: every function works on a copy of the few rows that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from dlens.devices import Fetched, sent
from dlens.samplers.checks import Number

__all__ = [
    "Candidates",
    "Guess",
    "Noise",
    "Pick",
    "Picked",
    "Scores",
    "gumbel",
    "invert",
    "keep_top_k",
    "keep_top_p",
    "keep_within_p",
    "read",
    "without",
]

Scores = Float64[Tensor, "candidate vocab"]
Picked = tuple[Int[Tensor, " candidate"], Float64[Tensor, " candidate"]]

Pick = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From the scores of some candidates [candidate, vocab], and their noise, a token and a confidence each."""

Noise = Callable[[int, int], Tensor]
"""From a number of columns and the vocabulary's size, uniform numbers [batch, column, ...]."""

# Scores of one row of the batch that are held at a time: 32 MiB in float64.
SCORES_AT_A_TIME = 2**22


@final
class Candidates:
    """The places that a sampler wants guesses of; made before a step's forward, so that none is waited for after it.

    Args:
        open: which of the columns that are read, per row.

    Examples:
        >>> places = Candidates(torch.tensor([[True, False, True]]))
        >>> bool(places), places.within(slice(1, 3))
        (True, (tensor([0]), tensor([1])))
    """

    def __init__(self, open: Bool[Tensor, "batch column"]) -> None:
        self.open = open
        self._flags = Fetched(open)

    def __bool__(self) -> bool:
        return bool(self._flags.wait().any())

    def within(self, part: slice) -> tuple[Int[Tensor, " candidate"], Int[Tensor, " candidate"]]:
        """The row, and the column counted from the first of the part, of each candidate in a part of the columns."""
        rows, offsets = self._flags.wait()[:, part].nonzero(as_tuple=True)
        return sent(rows, self.open.device), sent(offsets, self.open.device)


@final
@dataclass(frozen=True)
class Guess:
    """What a sampler would commit, per column of a block; meaningless where a column is no candidate."""

    tokens: Int[Tensor, "batch column"]
    confidence: Float64[Tensor, "batch column"]


def read(
    logits: Float[Tensor, "*half batch column vocab"],
    candidates: Candidates,
    mask: int,
    pick: Pick,
    noise: Noise | None = None,
    draws: int = 0,
    guidance: Number = 0.0,
) -> Guess:
    """Guess a token and a confidence at every candidate.

    Args:
        logits: what a step of the model gave for the columns that are read; the conditional and the unconditional
            half along a first axis under guidance.
        candidates: which of the columns are wanted.
        mask: the mask token; it is never guessed.
        pick: the rule of the sampler.
        noise: source of the noise that `pick` wants, None where it wants none.
        draws: noise is drawn for at least so many columns, so that what is drawn at a step need
            not depend on the block that a run has reached.
        guidance: g in u + (g + 1)(c - u).
    """
    shape = candidates.open.shape
    guess = Guess(candidates.open.new_zeros(shape, dtype=torch.long), logits.new_zeros(shape, dtype=torch.float64))
    width = max(shape[1], draws)
    at_a_time = max(1, SCORES_AT_A_TIME // logits.shape[-1])
    for start in range(0, width, at_a_time):
        part = slice(start, start + at_a_time)
        drawn = noise(min(at_a_time, width - start), logits.shape[-1]) if noise else None
        rows, offsets = candidates.within(part)
        columns = start + offsets if start else offsets
        scores = _scores(logits, rows, columns, guidance)
        scores[:, mask] = -torch.inf
        tokens, confidence = pick(scores, None if drawn is None else drawn[rows, offsets])
        guess.tokens[rows, columns] = tokens
        guess.confidence[rows, columns] = confidence
    return guess


def _scores(logits: Tensor, rows: Tensor, columns: Tensor, guidance: Number) -> Scores:
    """A copy of the rows that are read."""
    if logits.ndim == 3:
        return logits[rows, columns].double()
    conditional, unconditional = logits[0][rows, columns].double(), logits[1][rows, columns].double()
    return unconditional + (guidance + 1) * (conditional - unconditional)


def without(scores: Scores, tokens: Sequence[int]) -> Scores:
    """The scores with some tokens at minus infinity."""
    kept = scores.clone()
    for token in tokens:
        kept[:, token] = -torch.inf
    return kept


def gumbel(scores: Tensor, temperature: Number, uniform: Tensor | None) -> Tensor:
    """Scores whose largest entry is a draw from softmax(scores / temperature).

    scores - T log(-log U) has its maximum where exp(scores) / (-log U)^T has it, without the overflow.
    """
    if uniform is None:
        return scores
    return scores - temperature * torch.log(-torch.log(uniform))


def keep_top_p(scores: Scores, top_p: Number) -> Scores:
    """The smallest set of likeliest tokens with more than `top_p` of the mass; the rest at minus infinity.

    Among equal scores the lowest token id comes first.
    """
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    mass_before = ordered.softmax(dim=1).cumsum(dim=1).roll(1, dims=1)
    mass_before[:, 0] = 0
    dropped = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, mass_before > top_p)
    return scores.masked_fill(dropped, -torch.inf)


def keep_top_k(scores: Scores, top_k: int) -> Scores:
    """The `top_k` likeliest tokens, and those equal to the last of them; the rest at minus infinity."""
    least = scores.topk(min(top_k, scores.shape[1]), dim=1).values[:, -1:]
    return scores.masked_fill(scores < least, -torch.inf)


def keep_within_p(scores: Scores, top_p: Number) -> Scores:
    """The likeliest tokens with at most `top_p` of the mass together, at least one; the rest at minus infinity.

    Among equal scores the lowest token id comes first.
    """
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    mass = ordered.softmax(dim=1).cumsum(dim=1)
    mass[:, 0] = 0
    dropped = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, mass > top_p)
    return scores.masked_fill(dropped, -torch.inf)


def invert(probabilities: Scores, uniform: Float[Tensor, " candidate"]) -> Int[Tensor, " candidate"]:
    """The token at which the cumulated probability first exceeds a uniform number."""
    cumulated = probabilities.cumsum(dim=1)
    # Scaled by the last entry, which rounding may leave below 1, so that no draw falls beyond the end.
    return torch.searchsorted(cumulated, (uniform * cumulated[:, -1])[:, None], right=True).squeeze(1)

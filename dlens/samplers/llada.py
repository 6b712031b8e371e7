"""LLaDA's sampler: blocks from left to right, a fixed number of tokens a step, the most confident first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import as_flag, plain_fields, require_word
from dlens.devices import sent
from dlens.samplers.blocks import block_columns, infilled, resolve_block, resolve_steps
from dlens.samplers.checks import Number, require_at_least, require_given, require_whole
from dlens.samplers.commit import candidates, commit, most_confident
from dlens.samplers.read import Candidates, Guess, Picked, Scores, gumbel, read, without
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens

__all__ = ["LLaDA"]

REMASKINGS = ("low_confidence", "random")


@final
@dataclass(frozen=True)
class LLaDA(Denoiser):
    """Fill the masks block by block, each in equally many steps, the most confident tokens first.

    A block with m masks and s steps commits m // s tokens a step, and one more in the first m % s
    steps, in each row by itself. The token is the likeliest, its confidence its probability.

    Args:
        steps: steps of the whole run, at most one a token and a multiple of the number of blocks;
            None is one token a step.
        block_length: tokens a block; it must divide the number of new tokens. None is 32, or all
            new tokens where there are fewer or 32 does not divide them.
        temperature: 0 takes the likeliest token; above, a Gumbel draw from softmax(logits / T).
            The confidence is always the probability at temperature 1.
        guidance: g of classifier-free guidance in LLaDA's convention, u + (g + 1)(c - u), where u
            are the logits with the prompt masked: 0 is none. Dream's papers write the same as
            u + g'(c - u), so that g' = g + 1. Both halves are one step.
        remasking: "low_confidence" keeps the most confident tokens, "random" any.
        eos_inf: never take the end-of-sequence token (`logits_eos_inf`).
        confidence_eos_inf: take end-of-sequence and end-of-turn tokens last: confidences come from
            a softmax without them, so theirs is 0 (`confidence_eos_eot_inf`).

    Source: Nie et al. 2025, arXiv:2502.09992, algorithms 4 and 5 and appendix B.4.

    Examples:
        >>> LLaDA(steps=16, block_length=32).planned_steps(64)
        16
    """

    steps: int | None = None
    block_length: int | None = None
    temperature: Number = 0.0
    guidance: Number = 0.0
    remasking: str = "low_confidence"
    eos_inf: bool = False
    confidence_eos_inf: bool = False

    def __post_init__(self) -> None:
        require_whole("steps", self.steps, 1, "None is one token a step")
        require_whole("block_length", self.block_length, 1, "None chooses one")
        require_given("temperature", self.temperature, "0 takes the likeliest token")
        require_at_least("temperature", self.temperature, 0, "0 takes the likeliest token")
        require_given("guidance", self.guidance, "0 is no guidance")
        require_at_least("guidance", self.guidance, 0, "0 is no guidance")
        require_word("remasking", self.remasking, REMASKINGS)
        for name in ("eos_inf", "confidence_eos_inf"):
            as_flag(getattr(self, name), name)
        if self.confidence_eos_inf and self.remasking == "random":
            raise ValueError(
                "confidence_eos_inf=True with remasking='random'; expected remasking='low_confidence', as random "
                "remasking has no confidence; use eos_inf=True to keep out the end of sequence"
            )
        plain_fields(self)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        block = resolve_block(self.block_length, max_new_tokens)
        return resolve_steps(self.steps, max(1, max_new_tokens // max(1, block)), max_new_tokens + infill)

    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        self.planned_steps(new_tokens, infilled(generated, new_tokens))
        self._require_ends(tokens)
        blocks = block_columns(generated, new_tokens, resolve_block(self.block_length, new_tokens))
        masks = [candidates(canvas, generated, columns, tokens.mask).sum(dim=1) for columns in blocks]
        # Asked of the device once: what a block commits is known beforehand.
        for columns, counts in zip(blocks, torch.stack(masks).tolist(), strict=True):
            for quota in _quotas(counts, self.steps and self.steps // len(blocks)):
                places = Candidates(candidates(canvas, generated, columns, tokens.mask))
                logits = forward(canvas, self._unconditional(canvas, generated, tokens), columns)
                guess = self._guess(logits, places, tokens, draw)
                chosen = most_confident(guess.confidence, places.open, sent(torch.tensor(quota), canvas.device))
                canvas = commit(canvas, columns, chosen, guess.tokens)
        return canvas

    def _require_ends(self, tokens: Tokens) -> None:
        if (self.eos_inf or self.confidence_eos_inf) and tokens.eos is None:
            name = "eos_inf" if self.eos_inf else "confidence_eos_inf"
            raise ValueError(
                f"{name}=True on a model without an end-of-sequence token; expected a tokenizer that names one; "
                f"set tokenizer.eos_token, or leave {name} out"
            )

    def _unconditional(self, canvas: TokenIds, generated: TokenMask, tokens: Tokens) -> TokenIds | None:
        """The canvas with its prompt masked, where there is guidance."""
        # Padding is masked too: nothing attends to it in either half.
        return canvas.where(generated, tokens.mask) if self.guidance else None

    def _guess(self, logits: Tensor, places: Candidates, tokens: Tokens, draw: Draw) -> Guess:

        def pick(scores: Scores, uniform: Tensor | None) -> Picked:
            return self._pick(scores, uniform, tokens)

        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((len(places.open), n_columns, vocab))

        guess = read(logits, places, tokens.mask, pick, noise if self.temperature else None, guidance=self.guidance)
        if self.remasking == "random":
            return replace(guess, confidence=draw(tuple(places.open.shape)))
        return guess

    def _pick(self, scores: Scores, uniform: Tensor | None, tokens: Tokens) -> Picked:
        eos = () if tokens.eos is None else (tokens.eos,)
        if self.eos_inf:
            scores = without(scores, eos)
        chosen = gumbel(scores, self.temperature, uniform).argmax(dim=1)
        if self.remasking == "random":
            return chosen, torch.zeros_like(chosen, dtype=torch.float64)
        if self.confidence_eos_inf:
            scores = without(scores, (*eos, *tokens.ends))
        return chosen, scores.softmax(dim=1).gather(1, chosen[:, None]).squeeze(1)


def _quotas(masks: Sequence[int], steps: int | None) -> list[list[int]]:
    """How many tokens each row of a block commits at each step that any does; None is one at a time."""
    steps = max(masks) if steps is None else steps
    return [[n // steps + (step < n % steps) for n in masks] for step in range(min(steps, max(masks)))]

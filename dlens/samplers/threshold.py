"""Parallel decoding by confidence: at each step all tokens that are sure enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import plain_fields
from dlens.samplers.blocks import block_columns, infilled, resolve_block
from dlens.samplers.checks import Number, require_at_least, require_between, require_given, require_whole
from dlens.samplers.commit import candidates, commit, rank
from dlens.samplers.read import Candidates, Guess, Picked, Scores, gumbel, read
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens

__all__ = ["Threshold"]


@final
@dataclass(frozen=True)
class Threshold(Denoiser):
    """Commit all tokens of a block whose confidence reaches a threshold, and always the surest one.

    The number of steps follows from the model; it is at most one a token. In a batch a block ends when it is filled in
    every row; rows that are done wait unchanged.

    Args:
        threshold: least confidence, the token's probability; one equal to it is committed, as in
            the published code.
        factor: f of the second rule, which then replaces the threshold: with confidences sorted
            downwards, the longest run is committed whose n-th confidence is at least
            1 - f / (n + 1), n counted from 1. Larger is bolder.
        block_length: tokens a block; it must divide the number of new tokens. None is 32, or all
            new tokens where there are fewer or 32 does not divide them.
        temperature: 0 takes the likeliest token; above, a Gumbel draw from softmax(logits / T).
            The confidence is always the probability at temperature 1.

    Source: Wu et al. 2025, Fast-dLLM, arXiv:2505.22618, section 3.3. The paper's factor rule is
    strict, (n + 1)(1 - c) < f; the published code, and this, let equality pass.

    Examples:
        >>> Threshold().planned_steps(64)
        64
    """

    threshold: Number = 0.9
    factor: Number | None = None
    block_length: int | None = None
    temperature: Number = 0.0

    def __post_init__(self) -> None:
        require_given("threshold", self.threshold, "it is a probability, for example 0.9")
        require_between("threshold", self.threshold, 0, 1, "it is a probability, for example 0.9")
        require_at_least("factor", self.factor, 0, "None uses the threshold instead")
        require_whole("block_length", self.block_length, 1, "None chooses one")
        require_given("temperature", self.temperature, "0 takes the likeliest token")
        require_at_least("temperature", self.temperature, 0, "0 takes the likeliest token")
        plain_fields(self)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        resolve_block(self.block_length, max_new_tokens)
        return max_new_tokens + infill

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
        blocks = block_columns(generated, new_tokens, resolve_block(self.block_length, new_tokens))
        widest = max(map(len, blocks))
        for columns in blocks:
            while places := Candidates(candidates(canvas, generated, columns, tokens.mask)):
                guess = self._guess(forward(canvas, columns=columns), places, tokens, draw, widest)
                canvas = commit(canvas, columns, self._chosen(guess, places.open), guess.tokens)
        return canvas

    def _guess(self, logits: Tensor, places: Candidates, tokens: Tokens, draw: Draw, widest: int) -> Guess:
        def pick(scores: Scores, uniform: Tensor | None) -> Picked:
            chosen = gumbel(scores, self.temperature, uniform).argmax(dim=1)
            return chosen, scores.softmax(dim=1).gather(1, chosen[:, None]).squeeze(1)

        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((len(places.open), n_columns, vocab))

        # Two runs may be in different blocks at one step; what a step draws must not depend on that.
        return read(logits, places, tokens.mask, pick, noise if self.temperature else None, draws=widest)

    def _chosen(self, guess: Guess, open: Bool[Tensor, "batch column"]) -> Bool[Tensor, "batch column"]:
        ranks = rank(guess.confidence, open)
        if self.factor is None:
            return open & ((guess.confidence >= self.threshold) | (ranks == 0))
        needed = 1 - self.factor / (ranks.double() + 2)
        failed = open & (guess.confidence < needed) & (ranks > 0)
        first_failed = ranks.masked_fill(~failed, ranks.shape[1]).amin(dim=1, keepdim=True)
        return open & (ranks < first_failed)

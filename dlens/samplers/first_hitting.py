"""BD3-LM's sampler: canvas blocks from left to right, one token a step, at a random place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import plain_fields, require_word
from dlens.samplers.checks import Number, require_between, require_given, require_whole
from dlens.samplers.commit import rank
from dlens.samplers.read import Candidates, Picked, Scores, gumbel, keep_within_p, read
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens
from dlens.samplers.walk import STOPS, BlockWalk, filled_up

__all__ = ["FirstHitting"]


@final
@dataclass(frozen=True)
class FirstHitting(Denoiser):
    """Fill canvas blocks from left to right, a token a step: the place drawn evenly, the token from the model.

    The times at which a continuous process reveals its tokens come out of the draw; a model that is told the noise
    gets the share of masks of the canvas instead. Blocks are counted from each row's first real token, and the last one
    is decoded whole and cut. Rows of a batch go through their blocks at their own pace.

    Args:
        block_length: tokens a canvas block; that of the model's attention where this is causal between blocks.
        top_p: draw from the likeliest tokens whose mass together is at most this, and always the likeliest; None is
            all. (The published rule: other samplers keep the token that crosses the mass, too.)
        stop: when an end of sequence ends a row: "never"; "block", when its block is over; "token", as soon as
            everything before it is decoded. What is left of the row becomes end of sequence.

    Source: Zheng et al. 2025, arXiv:2409.02908, section 4; BD3-LM, arXiv:2503.09573, `first_hitting`.

    Examples:
        >>> FirstHitting(block_length=4).planned_steps(16)
        19
    """

    block_length: int = 16
    top_p: Number | None = None
    stop: str = "block"

    def __post_init__(self) -> None:
        require_given("block_length", self.block_length, "it is that of the model's blocks, for example 16")
        require_whole("block_length", self.block_length, 1, "it is that of the model's blocks, for example 16")
        require_between("top_p", self.top_p, 0, 1, "it is a probability mass, None is all")
        require_word("stop", self.stop, STOPS)
        plain_fields(self)

    def filled_up(self, lengths: Sequence[int], new_tokens: int) -> tuple[int, ...]:
        return filled_up(lengths, new_tokens, self.block_length)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return max_new_tokens + infill + self.block_length - 1

    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        walk, batch = BlockWalk(generated, self.block_length, tokens, self.stop), len(canvas)

        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((batch, n_columns, vocab))

        while any(walk.live):
            place = walk.look(canvas)
            masks = place.open.sum(1)
            over = [live and not more for live, more in zip(walk.live, masks.tolist(), strict=True)]
            if any(over):
                walk.move(over, canvas)
                continue
            places = Candidates(place.open)
            logits = forward(canvas, columns=place.asked)
            guess = read(logits, places, tokens.mask, self._pick, noise, draws=self.block_length)
            # From left to right, as no mask is surer than another.
            order = rank(torch.zeros_like(guess.confidence), place.open)
            picked = (draw((batch,)) * masks).long()
            canvas = place.write(canvas, place.open & (order == picked[:, None]), guess.tokens)
            walk.stop_early(canvas)
        return walk.finished(canvas)

    def _pick(self, scores: Scores, uniform: Tensor | None) -> Picked:
        if self.top_p is not None and self.top_p < 1:
            scores = keep_within_p(scores, self.top_p)
        chosen = gumbel(scores, 1.0, uniform).argmax(dim=1)
        return chosen, torch.zeros_like(chosen, dtype=torch.float64)

"""Block diffusion: canvas blocks from left to right, each denoised by confidence, with edits and early stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import as_flag, plain_fields, require_word
from dlens.samplers.checks import Number, require_at_least, require_between, require_given, require_whole
from dlens.samplers.commit import most_confident
from dlens.samplers.read import Candidates, Guess, Picked, Scores, invert, keep_top_k, keep_top_p, read
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens
from dlens.samplers.walk import STOPS, BlockWalk, Place, filled_up, most_blocks

__all__ = ["BlockDiffusion"]


@final
@dataclass(frozen=True)
class _Pace:
    """How far a row is in its block.

    Args:
        steps: steps of its schedule.
        after: steps that began without a mask.
        settled: whether one of these edited nothing.
    """

    steps: int = 0
    after: int = 0
    settled: bool = False

    def next(self, masked: bool, edited: bool, alone: bool) -> _Pace:
        """After a step: whether it began with masks, edited a token, committed a first token alone."""
        return _Pace(self.steps + (not alone), self.after + (not masked), not masked and not edited)


@final
@dataclass(frozen=True)
class BlockDiffusion(Denoiser):
    """Fill canvas blocks from left to right: at each step the tokens that are sure enough, or the surest ones.

    Blocks are counted from each row's first real token: the one in which a prompt ends is shared with the answer, and
    the last one is decoded whole and cut. At step i of a block, n(i) tokens are due: its tokens spread evenly over
    `steps`. If at least n(i) masks have a confidence above the threshold, all of these are committed, else the n(i)
    surest. Rows of a batch go through their blocks at their own pace.

    The defaults are LLaDA2.0's, where `minimal_topk=1` is published, too. LLaDA2.1: `steps=None, edit_threshold=0.9`.
    SDAR: `block_length=4, threshold=0.85` ("dynamic"), or `threshold=None` ("static"). Fast-dLLM v2: `steps=None,
    threshold=0.9, small_block=8, first_alone=True, stop="token"`.

    Args:
        block_length: tokens a canvas block; that of the model's attention where this is causal between blocks.
        steps: over which the tokens of a block are spread; None is at least one token a step, at as many steps as it
            takes.
        threshold: confidence, the token's probability, above which a token is committed; None is the surest alone.
        strict: whether a confidence must be above a threshold, as in all code named here; False lets one equal to it
            pass.
        minimal_topk: k of LLaDA2.0's bound: at most new tokens // k steps a block; None is no bound.
        small_block: within a block, fill parts of so many tokens from left to right; None is the whole block.
        first_alone: whether the first token of a block is committed at a step of its own, its likeliest, before the
            others: what the finished block before it predicts, where logits are shifted.
        edit_threshold: confidence above which a decoded token of the block is replaced by another one; None is never.
            A block then ends when a step without masks edits nothing.
        max_post_steps: the most steps without masks in a block, where there are edits.
        stop: when an end of sequence ends a row: "never"; "block", when its block is over; "token", as
            soon as everything before it is decoded. What is left of the row becomes end of sequence.
        temperature: 0 takes the likeliest token, its confidence from softmax(logits); above, a draw from
            softmax(logits / T) after top_k and top_p, which confidences are of, too.
        top_k: draw from the k likeliest tokens; None is all.
        top_p: draw from the smallest set of likeliest tokens with more than this mass; None is all.

    Source: Arriola et al. 2025, arXiv:2503.09573; `generate` of LLaDA2.0 and 2.1 (arXiv:2512.15745), SDAR
    (arXiv:2510.06303) and Fast-dLLM v2 (arXiv:2509.26328).

    Examples:
        >>> BlockDiffusion(block_length=8, steps=8).planned_steps(16)
        24
    """

    block_length: int = 32
    steps: int | None = 32
    threshold: Number | None = 0.95
    strict: bool = True
    minimal_topk: int | None = None
    small_block: int | None = None
    first_alone: bool = False
    edit_threshold: Number | None = None
    max_post_steps: int = 16
    stop: str = "block"
    temperature: Number = 0.0
    top_k: int | None = None
    top_p: Number | None = None

    def __post_init__(self) -> None:
        require_given("block_length", self.block_length, "it is that of the model's blocks, for example 32")
        require_whole("block_length", self.block_length, 1, "it is that of the model's blocks, for example 32")
        require_whole("steps", self.steps, 1, "None is at least one token a step")
        require_between("threshold", self.threshold, 0, 1, "it is a probability, None is the surest alone")
        require_whole("minimal_topk", self.minimal_topk, 1, "None is no bound")
        require_whole("small_block", self.small_block, 1, "None is the whole block")
        require_between("edit_threshold", self.edit_threshold, 0, 1, "it is a probability, None is no edits")
        require_given("max_post_steps", self.max_post_steps, "for example 16")
        require_whole("max_post_steps", self.max_post_steps, 0, "it bounds the steps without masks")
        require_word("stop", self.stop, STOPS)
        require_given("temperature", self.temperature, "0 takes the likeliest token")
        require_at_least("temperature", self.temperature, 0, "0 takes the likeliest token")
        require_whole("top_k", self.top_k, 1, "None is all tokens")
        require_between("top_p", self.top_p, 0, 1, "it is a probability mass, None is all")
        for name in ("strict", "first_alone"):
            as_flag(getattr(self, name), name)
        plain_fields(self)
        if self.small_block is not None and self.block_length % self.small_block:
            raise ValueError(
                f"small_block={self.small_block} in blocks of {self.block_length}; expected a number that divides the "
                f"block length; give another one, or None for whole blocks"
            )

    def filled_up(self, lengths: Sequence[int], new_tokens: int) -> tuple[int, ...]:
        return filled_up(lengths, new_tokens, self.block_length)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        blocks = most_blocks(max_new_tokens, infill, self.block_length)
        most = max_new_tokens + infill + self.block_length - 1  # one token a step
        steps = most if self.steps is None else blocks * (self._steps(max_new_tokens) + self.first_alone)
        return steps + blocks * self.max_post_steps * (self.edit_threshold is not None)

    def _steps(self, new_tokens: int) -> int:
        """Steps over which the tokens of a block are spread."""
        assert self.steps is not None
        return self.steps if self.minimal_topk is None else max(1, min(self.steps, new_tokens // self.minimal_topk))

    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        walk, pace = BlockWalk(generated, self.block_length, tokens, self.stop), [_Pace() for _ in canvas]
        while any(walk.live):
            place = walk.look(canvas)
            masked = place.open.any(1).tolist()
            over = [live and self._over(more, row) for live, more, row in zip(walk.live, masked, pace, strict=True)]
            if any(over):
                walk.move(over, canvas)
                pace = [_Pace() if left else row for row, left in zip(pace, over, strict=True)]
                continue
            due = torch.tensor([self._due(row.steps, new_tokens) for row in pace], device=canvas.device)
            canvas, edited, alone = self._step(forward, canvas, place, due, tokens, draw)
            pace = [row.next(*did) for row, did in zip(pace, zip(masked, edited, alone, strict=True), strict=True)]
            walk.stop_early(canvas)
        return walk.finished(canvas)

    def _over(self, masked: bool, pace: _Pace) -> bool:
        """Whether a row's block is over: nothing is masked, nor, where there are edits, to be looked at once more."""
        return not masked and (self.edit_threshold is None or pace.settled or pace.after == self.max_post_steps)

    def _due(self, step: int, new_tokens: int) -> int:
        """How many tokens a block commits at a step, at least."""
        if self.steps is None:
            return 1
        steps = self._steps(new_tokens)
        return self.block_length // steps + (step < self.block_length % steps) if step < steps else 0

    def _step(
        self, forward: Forward, canvas: TokenIds, place: Place, due: Tensor, tokens: Tokens, draw: Draw
    ) -> tuple[TokenIds, list[bool], list[bool]]:
        """One step: the new canvas, and per row whether a token was edited, and whether the first stood alone."""
        open, alone = self._now(place)
        editable = place.mine & ~place.open if self.edit_threshold is not None else torch.zeros_like(open)
        read_at = Candidates(open | editable)
        first = Candidates(read_at.open & alone[:, None]) if self.temperature else read_at
        guess = self._guess(forward(canvas, columns=place.asked), read_at, first, tokens, draw)
        chosen = torch.where(alone[:, None], open, self._chosen(guess, open, due))
        old = canvas.gather(1, place.columns)
        edits = editable & self._above(guess, self.edit_threshold) & (guess.tokens != old)
        return place.write(canvas, chosen | edits, guess.tokens), edits.any(1).tolist(), alone.tolist()

    def _now(self, place: Place) -> tuple[Bool[Tensor, "batch column"], Bool[Tensor, " batch"]]:
        """Which masks may be committed at this step, and in which rows that is the first of a block alone."""
        open = place.open
        if self.small_block is not None:
            part = torch.arange(open.shape[1], device=open.device) // self.small_block
            reached = torch.where(open, part, open.shape[1]).amin(1, keepdim=True)
            open = open & (part == reached)
        first = place.open & place.first if self.first_alone else torch.zeros_like(open)
        alone = first.any(1)
        return torch.where(alone[:, None], first, open), alone

    def _above(self, guess: Guess, threshold: Number | None) -> Bool[Tensor, "batch column"]:
        if threshold is None:
            return torch.zeros_like(guess.tokens, dtype=torch.bool)
        return guess.confidence > threshold if self.strict else guess.confidence >= threshold

    def _chosen(self, guess: Guess, open: Bool[Tensor, "batch column"], due: Tensor) -> Bool[Tensor, "batch column"]:
        sure = open & self._above(guess, self.threshold)
        enough = sure.sum(1) >= due
        return torch.where(enough[:, None], sure, most_confident(guess.confidence, open, due))

    def _guess(
        self,
        logits: Tensor,
        read_at: Candidates,
        first: Candidates,
        tokens: Tokens,
        draw: Draw,
    ) -> Guess:
        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((len(read_at.open), n_columns))

        if not self.temperature:
            return read(logits, read_at, tokens.mask, _likeliest)
        guess = read(logits, read_at, tokens.mask, self._drawn, noise, draws=self.block_length)
        likeliest = read(logits, first, tokens.mask, _likeliest)
        return Guess(torch.where(first.open, likeliest.tokens, guess.tokens), guess.confidence)

    def _drawn(self, scores: Scores, uniform: Tensor | None) -> Picked:
        assert uniform is not None
        scores = scores / self.temperature
        if self.top_k is not None:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        probabilities = scores.softmax(dim=1)
        chosen = invert(probabilities, uniform)
        return chosen, probabilities.gather(1, chosen[:, None]).squeeze(1)


def _likeliest(scores: Scores, uniform: Tensor | None) -> Picked:
    """The likeliest token and its probability."""
    chosen = scores.argmax(dim=1)
    return chosen, scores.softmax(dim=1).gather(1, chosen[:, None]).squeeze(1)

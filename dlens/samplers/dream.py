"""Dream's sampler: the whole canvas at once, on a schedule of noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import plain_fields, require_word
from dlens.samplers.blocks import block_columns, infilled
from dlens.samplers.checks import (
    Number,
    require_at_least,
    require_between,
    require_given,
    require_whole,
)
from dlens.samplers.commit import candidates, commit, most_confident
from dlens.samplers.read import Candidates, Guess, Picked, Scores, invert, keep_top_k, keep_top_p, read
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens

__all__ = ["Dream"]

ALGORITHMS = ("origin", "maskgit_plus", "topk_margin", "entropy")


@final
@dataclass(frozen=True)
class Dream(Denoiser):
    """Fill the masks of the whole canvas along noise levels t from 1 to eps, in `steps` equal parts.

    From t to s each row commits floor(m (1 - s/t)) of its m masks, those of the highest
    confidence, and at the last step all; "origin" instead reveals each mask with probability
    1 - s/t, in random order. The sampler needs no shift: the logits come aligned.

    Args:
        steps: steps of the whole run. None is one token a step, exactly; the same number given
            explicitly follows the schedule, whose floor commits none at the first step and two
            at the last.
        algorithm: the confidence. "maskgit_plus": the token's probability. "topk_margin": the
            likeliest token's probability less the second's. "entropy": minus the entropy.
            "origin": none, random order; the published default, but its authors warn of
            the quality, so the default of Dream's family in dlens is "entropy".
        temperature: 0 takes the likeliest token; above, a draw from softmax(logits / T).
            Confidences are those after temperature, top_p and top_k, at temperature 0 too.
        top_p: keep the smallest set of likeliest tokens with more than this mass; None is all.
        top_k: keep the k likeliest tokens; None is all.
        alg_temp: above 0, draw the positions without replacement from softmax(confidence /
            alg_temp); None and 0 take the most confident ones.
        eps: noise level at the end.

    Source: Ye et al. 2025, Dream 7B, arXiv:2508.15487, and its `diffusion_generate`.

    Examples:
        >>> Dream(steps=16, algorithm="entropy").planned_steps(64)
        16
    """

    steps: int | None = None
    algorithm: str = "origin"
    temperature: Number = 0.0
    top_p: Number | None = None
    top_k: int | None = None
    alg_temp: Number | None = None
    eps: Number = 1e-3

    def __post_init__(self) -> None:
        require_whole("steps", self.steps, 1, "None is one token a step")
        require_word("algorithm", self.algorithm, ALGORITHMS)
        require_given("temperature", self.temperature, "0 takes the likeliest token")
        require_at_least("temperature", self.temperature, 0, "0 takes the likeliest token")
        require_between("top_p", self.top_p, 0, 1, "it is a probability mass, None is all")
        require_whole("top_k", self.top_k, 1, "None is all tokens")
        require_at_least("alg_temp", self.alg_temp, 0, "None takes the most confident positions")
        require_given("eps", self.eps, "it is the noise level at the end, usually 0.001")
        require_between("eps", self.eps, 0, 0.5, "it is the noise level at the end, usually 0.001")
        plain_fields(self)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return max_new_tokens + infill if self.steps is None else self.steps

    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        n_steps = self.planned_steps(new_tokens, infilled(generated, new_tokens))
        [columns] = block_columns(generated, new_tokens, max(1, new_tokens))
        for step, share in enumerate(_shares(n_steps, self.eps)):
            places = Candidates(candidates(canvas, generated, columns, tokens.mask))
            if not places:
                break
            open, drawn = places.open, self.algorithm == "origin"
            if drawn:
                places = Candidates(open & (draw(tuple(open.shape)) < share))
            guess = self._guess(forward(canvas, columns=columns), places, tokens, draw)
            chosen = places.open
            if not drawn:
                counts = self._counts(open.sum(dim=1), share, last=step == n_steps - 1)
                chosen = most_confident(self._keys(guess.confidence, draw), open, counts)
            canvas = commit(canvas, columns, chosen, guess.tokens)
        return canvas

    def _counts(self, masks: Int[Tensor, " batch"], share: float, last: bool) -> Int[Tensor, " batch"]:
        if last:
            return masks
        if self.steps is None:
            return torch.ones_like(masks)
        # In float32, as published: the floor of a rounded product decides.
        return (masks.float() * share).long()

    def _keys(self, confidence: Float[Tensor, "batch column"], draw: Draw) -> Float[Tensor, "batch column"]:
        """Confidences, or keys whose top k is a draw of k positions without replacement."""
        if not self.alg_temp:
            return confidence
        return confidence / self.alg_temp - torch.log(-torch.log(draw(tuple(confidence.shape))))

    def _guess(self, logits: Tensor, places: Candidates, tokens: Tokens, draw: Draw) -> Guess:
        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((len(places.open), n_columns))

        return read(logits, places, tokens.mask, self._pick, noise if self.temperature else None)

    def _pick(self, scores: Scores, uniform: Tensor | None) -> Picked:
        if self.temperature:
            scores = scores / self.temperature
        if self.top_p is not None and self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        if self.top_k is not None:
            scores = keep_top_k(scores, self.top_k)
        probabilities = scores.softmax(dim=1)
        chosen = probabilities.argmax(dim=1) if uniform is None else invert(probabilities, uniform)
        if self.algorithm == "topk_margin":
            first, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
            return chosen, first - second
        if self.algorithm == "entropy":
            return chosen, (probabilities * torch.log(probabilities + 1e-10)).sum(dim=1)
        return chosen, probabilities.gather(1, chosen[:, None]).squeeze(1)


def _shares(steps: int, eps: float) -> list[float]:
    """1 - s/t of each step; the last commits all."""
    levels = torch.linspace(1, eps, steps + 1)
    return [*(1 - levels[1:-1] / levels[:-2]).tolist(), 1.0]

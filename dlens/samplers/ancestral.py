"""MDLM's sampler: the reverse of a masking process in equal steps of time, over the whole canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import plain_fields
from dlens.samplers.blocks import block_columns, infilled
from dlens.samplers.checks import Number, require_between, require_given, require_whole
from dlens.samplers.commit import candidates, commit
from dlens.samplers.read import Candidates, Picked, Scores, gumbel, read
from dlens.samplers.sampler import Denoiser, Draw, Forward, Tokens

__all__ = ["Ancestral"]


@final
@dataclass(frozen=True)
class Ancestral(Denoiser):
    """From time t to s each mask becomes a token with probability 1 - s/t, drawn from the model; tokens stay.

    Times fall evenly from 1 to `eps`; what is masked at the end takes its likeliest token, at a step of its own. A
    canvas that did not change is not computed again: its probabilities are carried over.

    Args:
        steps: steps of time; forwards are fewer where a step of time changed nothing. None is as many as tokens.
        eps: time at the end.

    Source: Sahoo et al. 2024, MDLM, arXiv:2406.07524, equation 6 and section 4.2.2, `ddpm_cache`. Where all mask logits
    are minus infinity and tokens carry over (SUBS), the masking rate of the log-linear schedule drops out.

    Examples:
        >>> Ancestral(steps=8).planned_steps(64), Ancestral().planned_steps(64)
        (9, 65)
    """

    steps: int | None = None
    eps: Number = 1e-5

    def __post_init__(self) -> None:
        require_whole("steps", self.steps, 1, "None is as many as tokens")
        require_given("eps", self.eps, "it is the time at the end")
        require_between("eps", self.eps, 0, 1, "it is the time at the end")
        plain_fields(self)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return (max_new_tokens + infill if self.steps is None else self.steps) + 1

    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        columns = torch.cat(block_columns(generated, new_tokens, max(1, new_tokens)))
        # The last step is one of its own; rows may have masks in unlike columns.
        n_steps = self.planned_steps(new_tokens, infilled(generated, new_tokens)) - 1
        times = torch.linspace(1, self.eps, n_steps + 1, dtype=torch.float64).tolist()

        def noise(n_columns: int, vocab: int) -> Tensor:
            return draw((len(canvas), n_columns, vocab))

        logits = None
        for t, s in zip(times, times[1:], strict=False):
            places = Candidates(candidates(canvas, generated, columns, tokens.mask))
            if not places:
                return canvas
            if logits is None:
                logits = forward(canvas, columns=columns)
            guess = read(logits, places, tokens.mask, _Reveal(t, s, tokens.mask), noise)
            chosen = places.open & (guess.tokens != tokens.mask)
            if chosen.any():
                canvas, logits = commit(canvas, columns, chosen, guess.tokens), None
        places = Candidates(candidates(canvas, generated, columns, tokens.mask))
        if not places:
            return canvas
        logits = forward(canvas, columns=columns) if logits is None else logits
        return commit(canvas, columns, places.open, read(logits, places, tokens.mask, _likeliest).tokens)


@final
@dataclass(frozen=True)
class _Reveal:
    """A draw between the model's tokens, and staying a mask, from time t to s."""

    t: float
    s: float
    mask: int

    def __call__(self, scores: Scores, uniform: Tensor | None) -> Picked:
        rates = scores.log_softmax(dim=1) + math.log(self.t - self.s)
        rates[:, self.mask] = math.log(self.s)
        chosen = gumbel(rates, 1.0, uniform).argmax(dim=1)
        return chosen, torch.zeros_like(chosen, dtype=torch.float64)


def _likeliest(scores: Scores, uniform: Tensor | None) -> Picked:
    chosen = scores.argmax(dim=1)
    return chosen, torch.zeros_like(chosen, dtype=torch.float64)

"""Texts as training reads them: what goes in, what is to be predicted, and what each prediction weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlens.findings.scores.batches import rng, token_rows
from dlens.models.family import Family
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_seed
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["Canvas", "Canvases", "check_draws", "noise_canvases", "text_canvases"]

# LLaDA's training keeps the mask rate off zero, where a masked token would weigh without bound.
_LEAST_RATE = 1e-3


@dataclass(frozen=True)
class Canvas:
    """One row: what goes in, what is to be predicted, and what each prediction weighs."""

    inputs: list[int]
    targets: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Canvases:
    """The rows of one loss, which is their weighted cross-entropy, summed and divided by `divisor`.

    Args:
        rows: the canvases.
        divisor: what the sum is divided by.
        estimator: which loss it is, in words.
        n_tokens: tokens of the text that it averages over.
    """

    rows: tuple[Canvas, ...]
    divisor: int
    estimator: str
    n_tokens: int


def text_canvases(model: Model, texts: Any = None, draws: int = 4, seed: int = 0) -> Canvases:
    """Next-token prediction of each text, or each text masked `draws` times for a diffusion model.

    Args:
        model: whose tokenizer and objective are used.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        draws: how many times each text is masked (diffusion only).
        seed: the same seed masks the same tokens.

    Raises:
        ValueError: no draw, or no token that anything predicts.
    """
    check_draws(draws, seed)
    rows = _rows(model, texts)
    n_tokens = sum(len(ids) - model.family.shift for ids in rows)
    if n_tokens == 0:
        raise ValueError(
            f"got texts of one token, which {model.name} predicts from nothing; expected at least two tokens in one of "
            f"them; write longer texts"
        )
    if model.family.objective == "autoregressive":
        canvases = [Canvas(ids, ids, [0.0] + [1.0] * (len(ids) - 1)) for ids in rows]
        return Canvases(tuple(canvases), n_tokens, "next-token cross-entropy", n_tokens)
    estimator = f"masked-denoising cross-entropy divided by the mask rate, {draws} draws a text"
    return Canvases(tuple(_masked(rows, model.family, draws, seed)), draws * n_tokens, estimator, n_tokens)


def noise_canvases(
    model: Model, noise: tuple[float, float], texts: Any = None, draws: int = 1, seed: int = 0
) -> Canvases:
    """Each text masked `draws` times at noise levels lo < noise <= hi; every canvas weighs the same.

    Their loss is the mean over canvases of the mean cross-entropy of the masked tokens. Weighed by
    the widths of levels that cover (0, 1], such losses add up to the denoising loss of `text_loss`.

    Args:
        model: a diffusion model.
        noise: the levels (lo, hi).
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        draws: how many times each text is masked.
        seed: the same seed masks the same tokens.

    Raises:
        ValueError: no draw, or every text is too short to have such a level.
    """
    check_draws(draws, seed)
    mask, shift = model.family.mask_token_id, model.family.shift
    assert mask is not None
    generator = rng(seed)
    canvases, n_tokens = [], 0
    for ids in _rows(model, texts):
        # The first token is never masked where the token before it would predict it.
        counts = [n for n in range(1, len(ids) - shift + 1) if noise[0] < n / len(ids) <= noise[1]]
        for _ in range(draws if counts else 0):
            n_masked = counts[int(torch.randint(len(counts), (), generator=generator))]
            masked = torch.zeros(len(ids), dtype=torch.bool)
            masked[torch.randperm(len(ids) - shift, generator=generator)[:n_masked] + shift] = True
            inputs = torch.where(masked, mask, torch.tensor(ids)).tolist()
            canvases.append(Canvas(inputs, ids, (masked / n_masked).tolist()))
        n_tokens += len(ids) if counts else 0
    if not canvases:
        raise ValueError(
            f"no text can have a share of masks from {noise[0]:g} to {noise[1]:g}; expected texts long enough for it; "
            f"write longer texts, or take fewer levels"
        )
    estimator = f"mean cross-entropy of masked tokens at noise {noise[0]:g} to {noise[1]:g}, {draws} draws a text"
    return Canvases(tuple(canvases), len(canvases), estimator, n_tokens)


def _rows(model: Model, texts: Any) -> list[list[int]]:
    return token_rows(model, calibration_texts() if texts is None else texts)


def check_draws(draws: int, seed: int) -> None:
    """Refuse no draw, and what is no seed.

    Raises:
        ValueError: says what came.
    """
    as_seed(seed)
    if as_index(draws, "draws") < 1:
        raise ValueError(f"draws={draws}; expected at least 1, how many times each text is masked; write draws=4")


def _masked(rows: Sequence[list[int]], family: Family, draws: int, seed: int) -> list[Canvas]:
    """Each text masked `draws` times, at rates that lie one in each equal part of (0, 1)."""
    assert family.mask_token_id is not None
    generator = rng(seed)
    canvases = []
    for ids in rows:
        start = torch.rand((), generator=generator).item()
        for draw in range(draws):
            rate = (1 - _LEAST_RATE) * ((draw + start) / draws) + _LEAST_RATE
            masked = torch.rand(len(ids), generator=generator) < rate
            masked[: family.shift] = False
            canvas = torch.where(masked, family.mask_token_id, torch.tensor(ids))
            canvases.append(Canvas(canvas.tolist(), ids, (masked / rate).tolist()))
    return canvases

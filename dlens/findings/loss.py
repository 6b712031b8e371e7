"""How well a model predicts a text, with or without operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Logits, TokenIds
from dlens.findings.batches import batched, rng, token_rows
from dlens.models.family import Family
from dlens.tracing.calibration import calibration_texts
from dlens.tracing.chain import Trace

__all__ = ["TextLoss", "text_loss"]

# LLaDA's training keeps the mask rate off zero, where a masked token would weigh without bound.
_LEAST_RATE = 1e-3


@dataclass(frozen=True)
class TextLoss:
    """The loss of a text.

    Args:
        value: nats a token.
        estimator: which loss it is.
        n_tokens: tokens of the text that it averages over.
    """

    value: float
    estimator: str
    n_tokens: int


@dataclass(frozen=True)
class _Row:
    """One canvas: what goes in, what is to be predicted, and what each prediction weighs."""

    inputs: list[int]
    targets: list[int]
    weights: list[float]


def text_loss(trace: Trace, texts: Any = None, *, draws: int = 4, batch_size: int = 8, seed: int = 0) -> TextLoss:
    """Mean loss a token: next-token, or masked denoising for a diffusion model.

    The denoising loss draws a mask rate t for each text, spread evenly over `draws`, masks each
    token with probability p = (1 - 0.001) t + 0.001 and divides the cross-entropy of the masked
    tokens by p: a bound on the negative log-likelihood (LLaDA, arXiv 2502.09992, equation 3). In
    families that predict a token from the position before it, the first token is never masked.
    Nothing predicts the first token of an autoregressive model, so it does not count.

    Args:
        trace: the model with whatever operations it has.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        draws: how many times each text is masked (diffusion only).
        batch_size: texts a forward.
        seed: the same seed masks the same tokens, so that two traces can be compared.

    Returns:
        The loss in nats a token.
    """
    model = trace.model
    rows = token_rows(model, calibration_texts() if texts is None else texts)
    n_tokens = sum(len(ids) - model.family.shift for ids in rows)
    if model.family.objective == "autoregressive":
        draws = 1
        canvases = [_Row(ids, ids, [0.0] + [1.0] * (len(ids) - 1)) for ids in rows]
        estimator = "next-token cross-entropy"
    else:
        canvases = _masked_rows(rows, model.family, draws, seed)
        estimator = f"masked-denoising cross-entropy divided by the mask rate, {draws} draws a text"
    total = sum(_batch_loss(trace, part) for part in batched(canvases, batch_size))
    return TextLoss(total / max(1, draws * n_tokens), estimator, n_tokens)


def _masked_rows(rows: Sequence[list[int]], family: Family, draws: int, seed: int) -> list[_Row]:
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
            canvases.append(_Row(canvas.tolist(), ids, (masked / rate).tolist()))
    return canvases


def _batch_loss(trace: Trace, rows: Sequence[_Row]) -> float:
    """Weighted cross-entropy of a batch, summed."""
    record = trace.capture("logits").forward([row.inputs for row in rows])
    real = ~record.is_pad.cpu()
    targets = torch.zeros_like(real, dtype=torch.long)
    targets[real] = torch.tensor([token for row in rows for token in row.targets])
    weights = torch.zeros(real.shape)
    weights[real] = torch.tensor([weight for row in rows for weight in row.weights])
    return weighted_cross_entropy(record["logits"], targets, weights, trace.model.family.shift)


def weighted_cross_entropy(
    logits: Logits, targets: TokenIds, weights: Float[Tensor, "batch position"], shift: int
) -> float:
    """Sum of weight x cross-entropy, the logits of position i - shift against the token at i."""
    width = logits.shape[1]
    counted: Bool[Tensor, "batch position"] = weights[:, shift:] > 0
    scores = logits[:, : width - shift][counted].float()
    losses = torch.nn.functional.cross_entropy(scores, targets[:, shift:][counted], reduction="none")
    return float((losses.double() * weights[:, shift:][counted].double()).sum())

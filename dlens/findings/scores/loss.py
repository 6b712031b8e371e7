"""How well a model predicts a text, with or without operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Logits, TokenIds, TokenMask
from dlens.errors import NeverFired
from dlens.findings.scores.batches import batched
from dlens.findings.scores.canvases import Canvas, Canvases, text_canvases
from dlens.tracing.chain import Trace
from dlens.tracing.records.record import Record

__all__ = ["TextLoss", "canvas_loss", "forward_or_idle", "loss_of", "losses_of", "refuse_idle", "text_loss"]


@dataclass(frozen=True)
class TextLoss:
    """The loss of a text.

    Args:
        value: nats a token.
        estimator: which loss it is.
        n_tokens: tokens of the text that it averages over.

    Examples:
        >>> import dlens
        >>> found = text_loss(dlens.trace("trio/ar"), ["Once upon a time"])
        >>> found.estimator, found.n_tokens, found.value > 0
        ('next-token cross-entropy', 3, True)
    """

    value: float
    estimator: str
    n_tokens: int


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

    Raises:
        ValueError: no draw, or no token that anything predicts.
        NeverFired: an operation found nothing to act on in any text.

    Examples:
        >>> import dlens
        >>> trace = dlens.trace("trio/diffusion")
        >>> plain, skipped = (text_loss(each, ["Once upon a time"]) for each in (trace, trace.skip([5])))
        >>> plain.n_tokens == skipped.n_tokens, plain.value != skipped.value
        (True, True)
    """
    return loss_of(trace, text_canvases(trace.model, texts, draws, seed), batch_size)


def loss_of(trace: Trace, canvases: Canvases, batch_size: int = 8) -> TextLoss:
    """The loss of canvases that were drawn before, so that many traces read the same."""
    return losses_of(trace, [canvases], batch_size)[0]


def losses_of(trace: Trace, parts: Sequence[Canvases], batch_size: int = 8, *, mixed: bool = False) -> list[TextLoss]:
    """The loss of each of several sets of canvases.

    An operation limited to some noise levels finds nothing to act on in some batches; all of them
    count as one run.

    Args:
        trace: the model with whatever operations it has.
        parts: the sets.
        batch_size: rows a forward.
        mixed: rows of several sets may share a forward, which changes no loss beyond rounding; a skip that
            acts in some rows of a forward only saves nothing there.

    Raises:
        NeverFired: an operation found nothing to act on in any batch.
    """
    watched, totals = trace.capture("logits"), [0.0] * len(parts)
    idle: set[str] | None = None
    record: Record | None = None
    for batch in _batches(parts, batch_size, mixed):
        record, unfired = forward_or_idle(watched, [row.inputs for _, row in batch])
        idle = unfired if idle is None else idle & unfired
        start = 0
        for number, group in groupby(batch, itemgetter(0)):
            rows = [row for _, row in group]
            own = slice(start, start := start + len(rows))
            totals[number] += canvas_loss(record["logits"][own], record.is_pad[own], rows, trace.model.family.shift)
    refuse_idle(idle, record)
    return [
        TextLoss(total / own.divisor, own.estimator, own.n_tokens) for total, own in zip(totals, parts, strict=True)
    ]


def _batches(parts: Sequence[Canvases], batch_size: int, mixed: bool) -> Iterator[Sequence[tuple[int, Canvas]]]:
    """The rows of each forward, each with the number of its set."""
    sets = [[(number, row) for row in canvases.rows] for number, canvases in enumerate(parts)]
    sets = [list(chain.from_iterable(sets))] if mixed else sets
    return (batch for rows in sets for batch in batched(rows, batch_size))


def forward_or_idle(chain: Trace, rows: Sequence[list[int]]) -> tuple[Record, set[str]]:
    """A forward over rows of token ids, and the operations that found nothing to act on."""
    try:
        return chain.forward(rows), set()
    except NeverFired as error:
        return error.record, set(error.ops)


def refuse_idle(idle: set[str] | None, record: Record | None) -> None:
    """Refuse operations that found nothing to act on in any batch.

    Args:
        idle: their words; None where nothing ran.
        record: the last batch.

    Raises:
        NeverFired: there are some.
    """
    if idle:
        raise NeverFired(
            f"'{min(idle)}' found nothing to act on in any text; expected at least one position; check noise= and "
            f"tokens= against the texts, the last of which are in error.record",
            record,
            tuple(sorted(idle)),
        )


def canvas_loss(logits: Logits, is_pad: TokenMask, rows: Sequence[Canvas], shift: int) -> float:
    """Weighted cross-entropy of a batch of canvases, summed."""
    real = ~is_pad.cpu()
    targets = torch.zeros_like(real, dtype=torch.long)
    targets[real] = torch.tensor([token for row in rows for token in row.targets])
    weights = torch.zeros(real.shape)
    weights[real] = torch.tensor([weight for row in rows for weight in row.weights])
    return weighted_cross_entropy(logits, targets, weights, shift)


def weighted_cross_entropy(
    logits: Logits, targets: TokenIds, weights: Float[Tensor, "batch position"], shift: int
) -> float:
    """Sum of weight x cross-entropy, the logits of position i - shift against the token at i."""
    width = logits.shape[1]
    counted: Bool[Tensor, "batch position"] = weights[:, shift:] > 0
    scores = logits[:, : width - shift][counted].float()
    losses = torch.nn.functional.cross_entropy(scores, targets[:, shift:][counted], reduction="none")
    return float((losses.double() * weights[:, shift:][counted].double()).sum())

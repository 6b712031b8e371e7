"""Numbers that a gradient is taken of: a metric is any function of a step's logits and the step, one number a row.

Logits of a diffusion model come aligned, so that those at a position predict its token; those of an
autoregressive model predict the token after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Logits, TokenIds, TokenMask
from dlens.checks import quoted, refuse, several, whole

__all__ = [
    "Metric",
    "MetricStep",
    "Where",
    "as_token_ids",
    "chosen_positions",
    "log_prob",
    "logit_difference",
    "masked_loss",
]


@dataclass(frozen=True)
class MetricStep:
    """What a metric is told beside the logits.

    Args:
        step: its number.
        tokens: [batch, position], what went into the step.
        real: what is not padding.
        masked: what is still a mask.
        noise: per row the share of masked positions; None for AR models.

    Examples:
        >>> import dlens
        >>> def spread(logits, step):
        ...     return logits[:, -1].std(-1) + 0 * step.step
        >>> trace = dlens.trace("trio/diffusion").gradient("resid_post", of=spread, layers=3)
        >>> trace.forward("Once upon a time").metric.shape
        torch.Size([1])
    """

    step: int
    tokens: TokenIds
    real: TokenMask
    masked: TokenMask
    noise: tuple[float, ...] | None


Metric = Callable[[Logits, MetricStep], Float[Tensor, " batch"]]
"""From the logits of a step and what is known of it, one number a row."""

Where = str | Sequence[int] | Tensor
"""Positions: "last", "masked" or "all", numbers counted from each row's first real token, or a bool tensor."""

_WHERE = ("last", "masked", "all")


def logit_difference(right: Any, wrong: Any, tokens: Where = "last") -> Metric:
    """How much larger the logit of one token is than that of another, averaged over the positions chosen.

    Args:
        right, wrong: token ids: one, or one for each row.
        tokens: where: "last", "masked", "all", positions counted from each row's first real token, or a bool tensor
            [batch, position].

    Returns:
        A metric.

    Raises:
        ValueError: something that is no token id, or no such positions.

    Examples:
        >>> import dlens
        >>> metric = dlens.metrics.logit_difference(right=301, wrong=302)
        >>> record = dlens.trace("trio/ar").gradient("z", of=metric).forward("Once upon a time")
        >>> record.metric.shape, record.gradients["z"].shape
        (torch.Size([1]), torch.Size([16, 1, 4, 3, 64]))
    """
    ids, others = as_token_ids(right, "right"), as_token_ids(wrong, "wrong")
    _check_where(tokens, "tokens")

    def metric(logits: Logits, step: MetricStep) -> Tensor:
        return _mean(_of(logits, ids) - _of(logits, others), chosen_positions(tokens, step, logits))

    return metric


def log_prob(token: Any, tokens: Where = "last") -> Metric:
    """The log probability of a token, averaged over the positions chosen.

    Args:
        token: token ids: one, or one for each row.
        tokens: where, as in `logit_difference`.

    Returns:
        A metric, in nats.

    Examples:
        >>> import dlens
        >>> trace = dlens.trace("trio/ar").gradient("resid_post", of=dlens.metrics.log_prob(301), layers=8)
        >>> bool(trace.forward("Once upon a time").metric < 0)
        True
    """
    ids = as_token_ids(token, "token")
    _check_where(tokens, "tokens")

    def metric(logits: Logits, step: MetricStep) -> Tensor:
        return _mean(_of(logits.log_softmax(-1), ids), chosen_positions(tokens, step, logits))

    return metric


def masked_loss(tokens: Any, where: Where = "masked") -> Metric:
    """The cross entropy of a text at its masked positions, averaged over them, one number a row.

    Args:
        tokens: [batch, position], the text without masks, of the width of what goes into a step.
        where: other positions, as in `logit_difference`.

    Returns:
        A metric, in nats a token.

    Examples:
        >>> import dlens, torch
        >>> model = dlens.load("trio/diffusion")
        >>> ids = torch.tensor([model.tokenizer("Once upon a time there was a girl")["input_ids"]])
        >>> masked = ids.clone()
        >>> masked[0, 4:] = model.family.mask_token_id
        >>> trace = dlens.trace(model).gradient("mlp_out", of=dlens.metrics.masked_loss(ids))
        >>> bool(trace.forward(masked).metric > 0)
        True
    """
    _check_where(where, "where")
    text = _tensor(tokens)
    if text is None or text.ndim != 2 or text.is_floating_point() or text.dtype == torch.bool:
        came = quoted(tokens) if text is None else f"{text.dtype} of shape {tuple(text.shape)}"
        raise ValueError(f"masked_loss got {came}; expected token ids [batch, position]; pass the text without masks")

    def metric(logits: Logits, step: MetricStep) -> Tensor:
        if text.shape != step.tokens.shape:
            raise ValueError(
                f"masked_loss has a text of shape {tuple(text.shape)}; expected {tuple(step.tokens.shape)}, as what "
                f"goes into the step; pass prompt and new tokens, left-padded"
            )
        _check_known(text, logits)
        found = logits.log_softmax(-1).gather(-1, text.to(logits.device)[..., None])[..., 0]
        return _mean(-found, chosen_positions(where, step, logits))

    return metric


def as_token_ids(ids: Any, what: str) -> Tensor:
    """[batch or 1] of token ids."""
    found = _tensor(ids)
    fits = found is not None and found.dtype in (torch.int64, torch.int32) and found.ndim <= 1 and found.numel() > 0
    if found is None or not fits or bool((found < 0).any()):
        raise ValueError(
            f"{what}={quoted(ids)}; expected token ids, one or one for each row; write "
            f"model.tokenizer(' Mary')['input_ids'][-1]"
        )
    return found.long().reshape(-1)


def _tensor(values: Any) -> Tensor | None:
    """As a tensor; None of what is none."""
    with suppress(TypeError, ValueError, RuntimeError):
        return torch.as_tensor(values)
    return None


def _check_where(tokens: Any, what: str) -> None:
    """Refuse what names no positions, before anything is computed.

    Raises:
        ValueError: says what came.
    """
    if isinstance(tokens, Tensor) and tokens.dtype == torch.bool:
        fits = tokens.ndim == 2
    elif isinstance(tokens, str):
        fits = tokens in _WHERE
    else:
        listed = list(tokens) if several(tokens) else [tokens]
        fits = len(listed) > 0 and all(whole(position) is not None for position in listed)
    if not fits:
        expected = f"{', '.join(_WHERE)}, positions or a bool tensor [batch, position]"
        refuse(what, tokens, expected, f"write {what}='last', or {what}=[0, -1]")


def _of(logits: Logits, ids: Tensor) -> Float[Tensor, "batch position"]:
    """What each row's own token has."""
    if len(ids) not in (1, len(logits)):
        raise ValueError(
            f"{len(ids)} token ids for {len(logits)} rows; expected one, or one for each row; pass as many"
        )
    _check_known(ids, logits)
    rows = ids.to(logits.device).expand(len(logits))[:, None, None]
    return logits.gather(-1, rows.expand(-1, logits.shape[1], 1))[..., 0]


def _check_known(ids: Tensor, logits: Logits) -> None:
    """Refuse tokens that the model does not predict."""
    unknown, n_tokens = ids[(ids < 0) | (ids >= logits.shape[-1])], logits.shape[-1]
    if len(unknown):
        raise ValueError(
            f"token {int(unknown[0])} of a model that predicts {n_tokens} tokens; expected 0 to {n_tokens - 1}; take "
            f"ids from this model's own tokenizer"
        )


def _mean(values: Float[Tensor, "batch position"], where: Bool[Tensor, "batch position"]) -> Float[Tensor, " batch"]:
    """Per row the mean over the positions chosen; 0 where a row has none."""
    return values.where(where, 0).sum(-1) / where.sum(-1).clamp(min=1)


def chosen_positions(tokens: Where, step: MetricStep, logits: Logits) -> Bool[Tensor, "batch position"]:
    """Where a metric looks, at the positions that have logits."""
    real, width = step.real, logits.shape[1]
    _check_where(tokens, "tokens")
    if isinstance(tokens, str):
        last = torch.zeros_like(real)
        last[:, -1] = True
        chosen = {"last": last, "masked": step.masked, "all": real}[tokens]
    elif isinstance(tokens, Tensor) and tokens.dtype == torch.bool:
        if tokens.shape != real.shape:
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)}; expected {tuple(real.shape)}, as what goes into the step"
            )
        chosen = tokens.to(real.device) & real
    else:
        chosen = _counted(torch.as_tensor(tokens).reshape(-1), real)
    if not bool(chosen[:, -width:].any()):
        raise ValueError(
            f"tokens={tokens!r} names no position of {width} that have logits at step {step.step}; expected at least "
            f"one; name others, or limit steps="
        )
    return chosen[:, -width:].to(logits.device)


def _counted(positions: Tensor, real: TokenMask) -> Bool[Tensor, "batch position"]:
    """Positions counted from each row's first real token; negative ones from its end."""
    length = real.sum(-1, keepdim=True)
    place = torch.where(real, real.cumsum(-1) - 1, real.shape[-1] + 1)[..., None]
    wanted = torch.where(positions.to(real.device) < 0, length + positions.to(real.device), positions.to(real.device))
    return (place == wanted[:, None, :]).any(-1) & real

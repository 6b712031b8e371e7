"""Read text, ends of rows and the order of commits off token ids."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.model import Model
from dlens.tracing.planning.tokens import after

__all__ = ["MASK_SIGN", "after_end", "committed_at", "continuations", "drafts", "end_ids", "pieces"]

MASK_SIGN = "░"


def end_ids(model: Model) -> tuple[int, ...]:
    """The tokens that end a row: those of the generation config, the tokenizer and the family."""
    ends = {model.eos_token_id, *model.family.end_token_ids}
    config = getattr(model.module, "generation_config", None)
    configured = config.eos_token_id if config is not None else None
    ends.update(configured if isinstance(configured, list) else [configured])
    return tuple(sorted(i for i in ends if i is not None))


def after_end(tokens: TokenIds, generated: TokenMask, ends: tuple[int, ...]) -> TokenMask:
    """[batch, position], what follows the first end token that was generated in each row."""
    end = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device)) & generated
    return after(end)


def continuations(model: Model, tokens: TokenIds, generated: TokenMask, shown: TokenMask) -> list[str]:
    """Per row the shown text up to its end of sequence, a sign for every mask; nothing without a tokenizer.

    Args:
        generated: [batch, position], what was decoded; ends that a prompt holds end nothing.
        shown: [batch, position], what the text is made of.
    """
    if model.tokenizer is None:
        return []
    kept = shown & ~after_end(tokens, generated, end_ids(model))
    return [_draft(model, row[keep].tolist()) for row, keep in zip(tokens, kept, strict=True)]


def pieces(model: Model, ids: Tensor) -> dict[int, str]:
    """The text of each token id that occurs, with the space before it where it has one; empty without a tokenizer."""
    if model.tokenizer is None:
        return {}
    found = [i for i in ids.unique().tolist() if i >= 0]
    return {i: _piece(model.tokenizer, i) for i in found}


def _piece(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token])
    # Tokenizers of this kind leave out the space that begins a text.
    starts = str(tokenizer.convert_ids_to_tokens(token)).startswith("▁")
    return f" {text}" if starts and not text.startswith(" ") else text


def drafts(model: Model, tokens: TokenIds, start: int) -> list[str]:
    """Per row the text from a column on while it is being denoised, a sign for every mask."""
    if model.tokenizer is None:
        return []
    return [_draft(model, row) for row in tokens[:, start:].tolist()]


def _draft(model: Model, ids: list[int]) -> str:
    mask = model.family.mask_token_id
    if mask not in ids:
        return model.tokenizer.decode(ids, skip_special_tokens=True)
    parts = []
    for masked, run in groupby(ids, lambda i: i == mask):
        held = list(run)
        parts.append(MASK_SIGN * len(held) if masked else model.tokenizer.decode(held, skip_special_tokens=True))
    return "".join(parts)


def committed_at(canvas: Int[Tensor, "step batch position"], final: TokenIds) -> TokenIds:
    """[batch, position], the step of the last change; -1 where nothing changed.

    Examples:
        >>> canvas = torch.tensor([[[1, 1]], [[7, 1]]])
        >>> committed_at(canvas, torch.tensor([[7, 8]])).tolist()
        [[0, 1]]
    """
    after = torch.cat([canvas[1:], final[None]])
    steps = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    return torch.where(after != canvas, steps, -1).amax(0)

"""Which positions an operation acts on, as users write it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from dlens.checks import quoted, require_word
from dlens.ops.base.given import as_ints, as_slice
from dlens.ops.base.scope import range_words
from dlens.ops.base.target import Target

__all__ = ["TOKEN_WORDS", "TokenSpec", "as_tokens", "check_tokens", "token_words"]

TokenSpec = str | slice | Iterable[SupportsIndex] | Tensor
TOKEN_WORDS = ("all", "prompt", "masked", "decoded", "last")


def token_words(tokens: TokenSpec) -> str:
    """A selection in words."""
    if isinstance(tokens, str):
        return f"{tokens} tokens" if tokens != "last" else "the last token"
    if isinstance(tokens, Tensor):
        return f"{int(tokens.sum())} chosen positions"
    return f"positions {range_words(tokens)}"


def as_tokens(tokens: Any) -> TokenSpec:
    """A token selection as a user writes it: a word, a slice, a tuple of ints, or a bool tensor of its own.

    Raises:
        ValueError: anything else, or no position at all.
    """
    forms = f"one of {', '.join(TOKEN_WORDS)}, a slice or list of positions, or a bool tensor [batch, position]"
    if isinstance(tokens, str):
        require_word("tokens", tokens, TOKEN_WORDS, forms)
        return tokens
    if isinstance(tokens, slice):
        return as_slice(tokens, "position")
    if isinstance(tokens, np.ndarray):
        tokens = torch.as_tensor(tokens)
    if isinstance(tokens, Tensor) and (tokens.ndim != 1 or tokens.dtype == torch.bool):
        if tokens.dtype != torch.bool or tokens.ndim != 2:
            raise ValueError(
                f"tokens is a {tokens.dtype} tensor of shape {tuple(tokens.shape)}; expected bool "
                f"[batch, position] over the whole run; make it with torch.zeros(batch, position, dtype=torch.bool)"
            )
        return tokens.detach().clone()
    if not isinstance(tokens, Iterable):
        raise ValueError(f"tokens={quoted(tokens)}; expected {forms}; write one position as a list")
    positions = as_ints(tokens, "position")
    if not positions:
        raise ValueError(f"tokens={tokens!r} names no position; expected {forms}; name at least one position")
    return positions


def check_tokens(tokens: TokenSpec, target: Target) -> None:
    """Refuse a token selection that means nothing for this model."""
    if isinstance(as_tokens(tokens), str) and tokens == "masked" and not target.has_noise:
        raise ValueError(
            f"tokens='masked' on {target.name}; expected a diffusion model, as an autoregressive model "
            f"has no masked positions; use 'prompt', 'decoded' or 'last'"
        )

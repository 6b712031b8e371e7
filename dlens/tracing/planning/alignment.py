"""Align the logits of a diffusion model with the tokens that they predict."""

from __future__ import annotations

import torch

from dlens.axes import Logits, TokenMask

__all__ = ["aligned"]


def aligned(logits: Logits, shift: int, real: TokenMask) -> Logits:
    """Move logits so that those at a position predict the token there.

    A row's first real token has nothing before it and keeps its own logits, as in Dream's sampler.

    Args:
        logits: [batch, position, vocab] as the module gives them.
        shift: of the family.
        real: [batch, position], what is not padding.
    """
    if shift == 0:
        return logits
    moved = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    first = real & (real.long().cumsum(-1) == 1)
    return torch.where(first[..., None], logits, moved)

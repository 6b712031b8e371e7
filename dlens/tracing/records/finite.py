"""Notice logits that are NaN or infinite, from which no token can be chosen, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Logits, TokenMask

__all__ = ["broken", "broken_forward", "broken_notes"]


def broken(scores: Float[Tensor, "*rows vocab"]) -> Bool[Tensor, ""]:
    """Whether any row has no finite largest score.

    Examples:
        >>> broken(torch.tensor([[1.0, -torch.inf], [2.0, 3.0]])), broken(torch.tensor([[1.0, torch.nan]]))
        (tensor(False), tensor(True))
    """
    return ~scores.amax(-1).isfinite().all()


def broken_forward(logits: Logits, real: TokenMask) -> Bool[Tensor, ""]:
    """Whether a stream that is not finite reached the logits: then all of a position are NaN, so one is looked at."""
    return (logits[..., 0].isnan() & real).any()


def broken_notes(steps: Sequence[Bool[Tensor, ""]]) -> tuple[str, ...]:
    """The note of a record on the steps whose logits were broken."""
    found = torch.stack(list(steps)).nonzero()[:, 0].tolist() if steps else []
    if not found:
        return ()
    named = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    return (
        f"logits are NaN or infinite at step{'s' * (len(found) > 1)} {named}: what follows from them means nothing; "
        f"look for the first layer whose capture is not finite",
    )

"""Notice logits that are NaN or infinite, from which no token can be chosen, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import Logits, TokenMask

__all__ = ["broken", "broken_forward", "broken_notes"]


def broken(scores: Float[Tensor, "*rows vocab"], where: TokenMask | None = None) -> Bool[Tensor, ""]:
    """Whether any row has no finite largest score.

    Args:
        scores: under guidance both halves, along a first axis.
        where: [batch, column], which rows are looked at; None is all of them.

    Examples:
        >>> scores = torch.tensor([[[1.0, -torch.inf], [1.0, torch.nan]]])
        >>> broken(scores, torch.tensor([[True, False]])), broken(scores)
        (tensor(False), tensor(True))
    """
    largest = scores.amax(-1)
    # What is not finite less itself is NaN: fewer kernels than `isfinite`.
    found = (largest - largest) != 0
    return (found if where is None else found & where).any()


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

"""What a block computes and no module shows by itself: the scale of a norm, and what each head adds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["by_head", "norm_scale"]

_EPS_NAMES = ("eps", "variance_epsilon", "epsilon", "norm_eps")
# Small enough beside 1 to leave a norm's scale alone, and large beside what is added to it.
_PROBE = 1e-3


Call = Callable[[Tensor], Tensor]


def norm_scale(
    norm: nn.Module, call: Call, value: Float[Tensor, "batch position d_model"]
) -> Float[Tensor, "batch position 1"]:
    """What a norm divides by: the root of the mean square, about the mean where the norm removes it.

    Args:
        norm: the module, whose class may be of any name.
        call: what runs it; asked what it does to a row of numbers.
        value: its input.
    """
    wide = value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if _is_centred(call, value):
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide.pow(2).mean(-1, keepdim=True) + _eps(norm, call, value)).sqrt()


def _is_centred(call: Call, value: Tensor) -> bool:
    """Whether a constant added to a row changes nothing."""
    row = torch.linspace(-1, 1, value.shape[-1], device=value.device, dtype=value.dtype)[None, None]
    plain, moved = call(row).float(), call(row + 1).float()
    return bool((plain - moved).abs().max() < 0.1 * plain.abs().max())


def _eps(norm: nn.Module, call: Call, value: Tensor) -> float:
    """What is added to the mean square: what the module calls so, else what its output for a small row tells."""
    for name in _EPS_NAMES:
        if isinstance(found := vars(norm).get(name), float):
            return found
    row = torch.ones(1, 1, value.shape[-1], device=value.device, dtype=torch.float32)
    row[..., ::2] = -1
    large, small = (call((row * size).to(value.dtype)).double().norm() for size in (1.0, _PROBE))
    return float(_PROBE**2 * ((large / small) ** 2 - 1))


def by_head(
    project: Call, z: Float[Tensor, "batch position head d_head"]
) -> Float[Tensor, "batch position head d_model"]:
    """What each head adds through the projection after attention, without the projection's bias.

    Args:
        project: the projection of all heads side by side; asked, not read, so that its weights may be stored anyhow.
        z: what the heads have.
    """
    heads = torch.eye(z.shape[2], device=z.device, dtype=z.dtype)
    alone = rearrange(z[:, :, None] * heads[:, :, None], "b p head other d_head -> b p head (other d_head)")
    return project(alone) - project(torch.zeros_like(alone[:1, :1, :1]))

"""The sampler that a kind of model is decoded with when none is named."""

from __future__ import annotations

from typing import Literal

from dlens.samplers.autoregressive import Autoregressive
from dlens.samplers.block_diffusion import BlockDiffusion
from dlens.samplers.dream import Dream
from dlens.samplers.llada import LLaDA
from dlens.samplers.sampler import Sampler

__all__ = ["default_for"]


def default_for(
    objective: Literal["autoregressive", "diffusion"], shift: int, block_length: int | None = None
) -> Sampler:
    """The default sampler of a kind of model: one token a step at temperature 0.

    Args:
        objective: what the model was trained for.
        shift: how far its logits lie before the token they predict: 0 as in LLaDA, 1 as in Dream.
        block_length: tokens of a canvas block where attention is causal between blocks; None where it is not.

    Examples:
        >>> default_for("diffusion", shift=0) == LLaDA()
        True
        >>> default_for("autoregressive", shift=1)
        Autoregressive(temperature=0.0, top_p=None, top_k=None)
    """
    if objective == "autoregressive":
        return Autoregressive()
    if block_length is not None:
        return BlockDiffusion(block_length, steps=None, threshold=None, first_alone=bool(shift))
    return Dream(algorithm="entropy") if shift else LLaDA()

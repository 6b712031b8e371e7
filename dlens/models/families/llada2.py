"""LLaDA2.0 and 2.1: mixtures of experts that denoise canvas blocks, with attention that is causal between them."""

from __future__ import annotations

from dlens.models.family import Family

__all__ = ["LLADA2"]

LLADA2 = Family(
    name="llada2",
    objective="diffusion",
    shift=0,
    mask_token_id=156895,
    model_types=("llada2_moe",),
    block_length=32,
)

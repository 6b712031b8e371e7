"""LLaDA2.0 and 2.1: mixtures of experts that denoise canvas blocks, with attention that is causal between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import Resid
from dlens.models.family import Family, Fill, Layout, Site

__all__ = ["LLADA2", "llada2_layout"]

LLADA2 = Family(
    name="llada2",
    objective="diffusion",
    shift=0,
    mask_token_id=156895,
    model_types=("llada2_moe",),
    block_length=32,
)

_FUSED = "one projection gives queries, and fewer keys and values, in a row"


def _no_attention(hidden: Resid, block: nn.Module) -> tuple[Tensor, None, None]:
    return torch.zeros_like(hidden), None, None


def _no_mlp(hidden: Resid, block: nn.Module) -> Tensor | tuple[Tensor, None]:
    """The first blocks have a plain MLP; experts tell of their routing, too."""
    zeros = torch.zeros_like(hidden)
    return (zeros, None) if "experts" in dict(block.mlp.named_children()) else zeros  # pyright: ignore


def llada2_layout(config: Any) -> Layout:
    """Where LLaDA2's parts are."""
    return Layout(
        blocks="model.layers",
        embed="model.word_embeddings",
        norm="model.norm",
        head="lm_head",
        sites={
            "attn_out": Site("attention"),
            "resid_mid": Site("post_attention_layernorm", "input"),
            "mlp_out": Site("mlp"),
            "ln1_scale": Site("input_layernorm", "input"),
            "z": Site("attention.dense", "input", heads=True),
            "ln2_scale": Site("post_attention_layernorm", "input"),
            "mlp_pre": Site("mlp.gate_proj"),
            "mlp_post": Site("mlp.down_proj", "input"),
        },
        attn_skip=(Fill("attention", _no_attention),),
        mlp_skip=(Fill("mlp", _no_mlp),),
        block_tuple=1,
        absent=dict.fromkeys("qkv", _FUSED),
        reads=("attention.query_key_value", "mlp.gate_proj", "mlp.up_proj"),
        writes=("attention.dense", "mlp.down_proj"),
    )

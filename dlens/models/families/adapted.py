"""Diffusion models made of autoregressive ones: SDAR, Fast-dLLM v2, LLaDA-MoE and RND1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import Resid, TokenIds, TokenMask
from dlens.models.families.decoder import llama_like
from dlens.models.family import Family, Fill, Inputs, Layout, block_inputs

__all__ = [
    "FAST_DLLM",
    "LLADA_MOE",
    "RND1",
    "SDAR",
    "llada_moe_layout",
]


_SHARED = "experts and a shared expert beside them are added up in no module of their own"


def _own_blocks(ids: TokenIds, attention_mask: TokenMask | None, told: Inputs) -> dict[str, Any]:
    """Fast-dLLM v2 makes its mask itself, by the length it is told, and ignores the one that it is given.

    A step that computes some columns alone reads what these see off the latter.
    """
    block = ids.shape[1] if told.block_length is None else told.block_length
    return block_inputs(ids, attention_mask, told) | {"block_size": block}


def _bare(ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
    """RND1 adds a mask to its scores or hands it to PyTorch as it is, so that none is right for both: rows of equal
    length need none."""
    return {"input_ids": ids}


SDAR = Family(
    name="sdar",
    objective="diffusion",
    shift=0,
    mask_token_id=151669,
    model_types=("sdar", "sdar_moe"),
    block_length=4,
)

FAST_DLLM = Family(
    name="fast-dllm-v2",
    objective="diffusion",
    shift=1,
    mask_token_id=151665,
    model_types=("Fast_dLLM_Qwen",),
    inputs=Inputs(_own_blocks),
    end_token_ids=(151645,),
    block_length=32,
)

LLADA_MOE = Family(
    name="llada-moe",
    objective="diffusion",
    shift=0,
    mask_token_id=156895,
    model_types=("lladamoe",),
)

RND1 = Family(
    name="rnd1",
    objective="diffusion",
    shift=0,
    mask_token_id=151669,
    model_types=("rnd1",),
    inputs=_bare,
)


def _zeros_three(hidden: Resid, block: nn.Module) -> tuple[Tensor, None, None]:
    return torch.zeros_like(hidden), None, None


def llada_moe_layout(config: Any) -> Layout:
    """Where LLaDA-MoE's parts are; where a shared expert runs beside the others, no module holds their sum."""
    layout = replace(llama_like(), block_tuple=1, attn_skip=(Fill("self_attn", _zeros_three),))
    if getattr(config, "shared_expert_intermediate_size", None) is None:
        return layout
    sites = {point: site for point, site in layout.sites.items() if point not in ("mlp_out", "mlp_post")}
    return replace(layout, sites=sites, mlp_skip=(), absent=dict.fromkeys(("mlp_out", "mlp_post"), _SHARED))

"""Dream and DiffuCoder: masked diffusion whose logits are shifted by one, as in the AR model they came from."""

from __future__ import annotations

from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from dlens.axes import Resid, TokenIds, TokenMask
from dlens.models.families.decoder import LLAMA_INNER, LLAMA_READS, LLAMA_WRITES
from dlens.models.family import Family, Fill, Layout, Site, position_ids

__all__ = ["DREAM", "dream_layout"]


def _inputs(ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
    """A 4-d mask that hides padded keys only: a padded query that sees nothing would be NaN."""
    if attention_mask is None:
        return {"input_ids": ids, "attention_mask": "full", "use_cache": False}
    keys = repeat(attention_mask, "batch key -> batch 1 query key", query=ids.shape[1])
    return {
        "input_ids": ids,
        "attention_mask": keys,
        "position_ids": position_ids(attention_mask),
        "use_cache": False,
    }


DREAM = Family(
    name="dream",
    objective="diffusion",
    shift=1,
    mask_token_id=151666,
    model_types=("Dream",),
    inputs=_inputs,
)


def _no_attention(hidden: Resid, block: nn.Module) -> tuple[Tensor, None, None]:
    return torch.zeros_like(hidden), None, None


def _zeros(hidden: Resid, block: nn.Module) -> Tensor:
    return torch.zeros_like(hidden)


def dream_layout(config: Any) -> Layout:
    """Where Dream's parts are: Qwen2's names, other return values."""
    return Layout(
        blocks="model.layers",
        embed="model.embed_tokens",
        norm="model.norm",
        head="lm_head",
        sites={
            "attn_out": Site("self_attn"),
            "resid_mid": Site("post_attention_layernorm", "input"),
            "mlp_out": Site("mlp"),
            **LLAMA_INNER,
        },
        attn_skip=(Fill("self_attn", _no_attention),),
        mlp_skip=(Fill("mlp", _zeros),),
        block_tuple=1,
        reads=LLAMA_READS,
        writes=LLAMA_WRITES,
    )

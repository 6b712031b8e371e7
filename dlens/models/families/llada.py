"""LLaDA: masked diffusion whose blocks have no attention or MLP module of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import Resid, TokenIds, TokenMask
from dlens.models.family import Family, Fill, Layout, Site

__all__ = ["LLADA", "llada_layout"]


def _inputs(ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
    """The module takes no positions, and a mask only where something is padded."""
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if attention_mask is not None:
        inputs["attention_mask"] = attention_mask.long()
    return inputs


LLADA = Family(
    name="llada",
    objective="diffusion",
    shift=0,
    mask_token_id=126336,
    model_types=("llada",),
    inputs=_inputs,
    end_token_ids=(126348,),
)


def _empty(hidden: Resid, block: nn.Module) -> Tensor:
    return hidden.new_empty((*hidden.shape[:2], 0))


def _empty_heads(hidden: Resid, block: nn.Module) -> tuple[Tensor, Tensor]:
    config: Any = block.config
    batch, position = hidden.shape[:2]
    query = hidden.new_empty((batch, config.n_heads, position, 0))
    key = hidden.new_empty((batch, config.effective_n_kv_heads, position, 0))
    return query, key


def _zeros(hidden: Resid, block: nn.Module) -> Tensor:
    return torch.zeros_like(hidden)


def llada_layout(config: Any) -> Layout:
    """Where LLaDA's parts are; half a block is skipped by giving its projections nothing to do.

    Raises:
        ValueError: the checkpoint is built of other blocks than the published ones.
    """
    if config.block_type != "llama" or config.block_group_size != 1:
        raise ValueError(
            f"LLaDA with block_type={config.block_type!r} and block_group_size={config.block_group_size}; expected "
            f"'llama' and 1, as published; pass a Layout of your own with family=dataclasses.replace(...)"
        )
    return Layout(
        blocks="model.transformer.blocks",
        embed="model.transformer.wte",
        norm="model.transformer.ln_f",
        head=None if config.weight_tying else "model.transformer.ff_out",
        sites={
            "attn_out": Site("attn_out"),
            "resid_mid": Site("ff_norm", "input"),
            "mlp_out": Site("ff_out"),
            "ln1_scale": Site("attn_norm", "input"),
            "q": Site("q_proj", heads=True),
            "k": Site("k_proj", heads=True),
            "v": Site("v_proj", heads=True),
            "z": Site("attn_out", "input", heads=True),
            "ln2_scale": Site("ff_norm", "input"),
            "mlp_pre": Site("ff_proj"),
            "mlp_post": Site("ff_out", "input"),
        },
        attn_skip=(
            *(Fill(name, _empty) for name in ("q_proj", "k_proj", "v_proj")),
            Fill("rotary_emb", _empty_heads),
            Fill("attn_out", _zeros),
        ),
        mlp_skip=(Fill("ff_proj", _empty), Fill("up_proj", _empty), Fill("ff_out", _zeros)),
        block_tuple=2,
        rotary="rotary_emb",
        reads=("q_proj", "k_proj", "v_proj", "ff_proj", "up_proj"),
        writes=("attn_out", "ff_out"),
    )

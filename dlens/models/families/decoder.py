"""Native decoders of the transformers library: where their parts are, and their three families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dlens.axes import Resid
from dlens.models.family import Family, Fill, Layout, Site

__all__ = [
    "AUTOREGRESSIVE",
    "DECODER_LAYOUTS",
    "LLAMA_INNER",
    "LLAMA_READS",
    "LLAMA_WRITES",
    "MASKED",
    "MASKED_SHIFTED",
    "llama_like",
]

AUTOREGRESSIVE = Family(name="autoregressive", objective="autoregressive", shift=1)
MASKED = Family(name="masked", objective="diffusion", shift=0, model_types=("bert", "modernbert"))
MASKED_SHIFTED = Family(name="masked-shifted", objective="diffusion", shift=1)

LLAMA_READS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
LLAMA_WRITES = ("self_attn.o_proj", "mlp.down_proj")

LLAMA_INNER: Mapping[str, Site] = MappingProxyType(
    {
        "ln1_scale": Site("input_layernorm", "input"),
        "q": Site("self_attn.q_proj", heads=True),
        "k": Site("self_attn.k_proj", heads=True),
        "v": Site("self_attn.v_proj", heads=True),
        "z": Site("self_attn.o_proj", "input", heads=True),
        "ln2_scale": Site("post_attention_layernorm", "input"),
        "mlp_pre": Site("mlp.gate_proj"),
        "mlp_post": Site("mlp.down_proj", "input"),
    }
)
"""What lies within the halves of a block that is laid out like Llama's."""

_PARALLEL = "this block runs attention and MLP side by side, so there is no stream between them"


def _zeros(hidden: Resid, block: nn.Module) -> torch.Tensor:
    return torch.zeros_like(hidden)


def _zeros_pair(hidden: Resid, block: nn.Module) -> tuple[torch.Tensor, None]:
    return torch.zeros_like(hidden), None


def llama_like(root: str = "model") -> Layout:
    """Pre-norm blocks with `self_attn`, `post_attention_layernorm` before the MLP, and `mlp`."""
    return Layout(
        blocks=f"{root}.layers",
        embed=f"{root}.embed_tokens",
        norm=f"{root}.norm",
        head="lm_head",
        sites={
            "attn_out": Site("self_attn"),
            "resid_mid": Site("post_attention_layernorm", "input"),
            "mlp_out": Site("mlp"),
            **LLAMA_INNER,
        },
        attn_skip=(Fill("self_attn", _zeros_pair),),
        mlp_skip=(Fill("mlp", _zeros),),
        reads=LLAMA_READS,
        writes=LLAMA_WRITES,
    )


def _gemma_sandwich(root: str = "model") -> Layout:
    """Gemma 2 and 3: a norm before and after each half; what is added has passed the second one."""
    llama = llama_like(root)
    sites = {
        "attn_out": Site("post_attention_layernorm"),
        "resid_mid": Site("pre_feedforward_layernorm", "input"),
        "ln2_scale": Site("pre_feedforward_layernorm", "input"),
        "mlp_out": Site("post_feedforward_layernorm"),
    }
    return replace(
        llama,
        sites={**llama.sites, **sites},
        attn_skip=(*llama.attn_skip, Fill("post_attention_layernorm", _zeros)),
        mlp_skip=(*llama.mlp_skip, Fill("post_feedforward_layernorm", _zeros)),
    )


def _fused(path: str, spelled: str) -> dict[str, Site]:
    """Queries, keys and values of one projection."""
    return {point: Site(path, heads=True, spelled=spelled, part=part) for part, point in enumerate("qkv")}


def _gpt2() -> Layout:
    return Layout(
        blocks="transformer.h",
        embed="transformer.wte",
        norm="transformer.ln_f",
        head="lm_head",
        sites={
            "attn_out": Site("attn"),
            "resid_mid": Site("ln_2", "input"),
            "mlp_out": Site("mlp"),
            "ln1_scale": Site("ln_1", "input"),
            **_fused("attn.c_attn", "batch position (part head d_head)"),
            "z": Site("attn.c_proj", "input", heads=True),
            "ln2_scale": Site("ln_2", "input"),
            "mlp_pre": Site("mlp.c_fc"),
            "mlp_post": Site("mlp.c_proj", "input"),
        },
        attn_skip=(Fill("attn", _zeros_pair),),
        mlp_skip=(Fill("mlp", _zeros),),
        reads=("attn.c_attn", "mlp.c_fc"),
        writes=("attn.c_proj", "mlp.c_proj"),
    )


def _gpt_neox(config: Any) -> Layout:
    sites = {
        "attn_out": Site("post_attention_dropout"),
        "mlp_out": Site("post_mlp_dropout"),
        "ln1_scale": Site("input_layernorm", "input"),
        **_fused("attention.query_key_value", "batch position (head part d_head)"),
        "z": Site("attention.dense", "input", heads=True),
        "ln2_scale": Site("post_attention_layernorm", "input"),
        "mlp_pre": Site("mlp.dense_h_to_4h"),
        "mlp_post": Site("mlp.dense_4h_to_h", "input"),
    }
    absent = {"resid_mid": _PARALLEL} if config.use_parallel_residual else {}
    if not absent:
        sites["resid_mid"] = Site("post_attention_layernorm", "input")
    return Layout(
        blocks="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        head="lm_head",
        sites=sites,
        attn_skip=(Fill("attention", _zeros_pair),),
        mlp_skip=(Fill("mlp", _zeros),),
        absent=absent,
        reads=("attention.query_key_value", "mlp.dense_h_to_4h"),
        writes=("attention.dense", "mlp.dense_4h_to_h"),
    )


DECODER_LAYOUTS: Mapping[str, Callable[[Any], Layout]] = MappingProxyType(
    {
        "gemma2": lambda config: _gemma_sandwich(),
        "gemma3": lambda config: _gemma_sandwich("model.language_model"),
        "gemma3_text": lambda config: _gemma_sandwich(),
        "gpt2": lambda config: _gpt2(),
        "gpt_neox": _gpt_neox,
        "gpt_oss": lambda config: replace(llama_like(), mlp_skip=(Fill("mlp", _zeros_pair),)),
    }
)
"""Model type -> layout, for native decoders that are not laid out like Llama."""

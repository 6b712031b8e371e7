"""Native decoders of the transformers library: their three families, and the layout that most of them share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dlens.models.family import Family, Fill, Layout, Site, Zeros

__all__ = [
    "AUTOREGRESSIVE",
    "LLAMA_INNER",
    "LLAMA_READS",
    "LLAMA_WRITES",
    "MASKED",
    "MASKED_SHIFTED",
    "llama_like",
]

AUTOREGRESSIVE = Family(name="autoregressive", objective="autoregressive", shift=1)
MASKED = Family(name="masked", objective="diffusion", shift=0)
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
        attn_skip=(Fill("self_attn", Zeros(length=2)),),
        mlp_skip=(Fill("mlp", Zeros()),),
        reads=LLAMA_READS,
        writes=LLAMA_WRITES,
    )

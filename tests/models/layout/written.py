"""Layouts as people wrote them down for each architecture, before dlens found them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dlens.models.families.decoder import llama_like
from dlens.models.family import Fill, Layout, Site, Zeros


def gemma_sandwich() -> Layout:
    """Gemma 2 and 3: a norm after each half, whose output is what is added to the stream."""
    llama = llama_like()
    sites = {
        "attn_out": Site("post_attention_layernorm"),
        "resid_mid": Site("pre_feedforward_layernorm", "input"),
        "ln2_scale": Site("pre_feedforward_layernorm", "input"),
        "mlp_out": Site("post_feedforward_layernorm"),
    }
    return replace(
        llama,
        sites={**llama.sites, **sites},
        attn_skip=(*llama.attn_skip, Fill("post_attention_layernorm", Zeros())),
        mlp_skip=(*llama.mlp_skip, Fill("post_feedforward_layernorm", Zeros())),
    )


def _fused(path: str, spelled: str) -> dict[str, Site]:
    return {point: Site(path, heads=True, spelled=spelled, part=part) for part, point in enumerate("qkv")}


def gpt2() -> Layout:
    """GPT-2."""
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
        attn_skip=(Fill("attn", Zeros(2)),),
        mlp_skip=(Fill("mlp", Zeros()),),
        reads=("attn.c_attn", "mlp.c_fc"),
        writes=("attn.c_proj", "mlp.c_proj"),
    )


def gpt_neox(side_by_side: bool) -> Layout:
    """Pythia."""
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
    if not side_by_side:
        sites["resid_mid"] = Site("post_attention_layernorm", "input")
    return Layout(
        blocks="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        head="lm_head",
        sites=sites,
        attn_skip=(Fill("attention", Zeros(2)),),
        mlp_skip=(Fill("mlp", Zeros()),),
        reads=("attention.query_key_value", "mlp.dense_h_to_4h"),
        writes=("attention.dense", "mlp.dense_4h_to_h"),
    )


def dream() -> Layout:
    """Dream and DiffuCoder: Qwen2's names, other return values."""
    return replace(llama_like(), attn_skip=(Fill("self_attn", Zeros(3)),), block_tuple=1)


WRITTEN: Mapping[str, Callable[[], Layout]] = {
    "qwen2": llama_like,
    "qwen3": llama_like,
    "llama": llama_like,
    "mistral": llama_like,
    "gemma": llama_like,
    "gemma2": gemma_sandwich,
    "gemma3": gemma_sandwich,
    "gpt2": gpt2,
    "pythia": lambda: gpt_neox(True),
    "neox-sequential": lambda: gpt_neox(False),
}
"""Name of a model in tests/models/conftest.py -> its layout."""

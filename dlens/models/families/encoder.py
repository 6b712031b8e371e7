"""Encoders that fill masks: BERT, whose stream is normed after each half, and ModernBERT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import Resid
from dlens.models.family import Fill, Layout, Site

__all__ = ["ENCODER_LAYOUTS"]

_NORMED = "a norm follows each sum of this block (post-norm), so that halves do not add up to its stream"


def _zeros(hidden: Resid, block: nn.Module) -> Tensor:
    return torch.zeros_like(hidden)


def _zeros_pair(hidden: Resid, block: nn.Module) -> tuple[Tensor, None]:
    return torch.zeros_like(hidden), None


def _bert(config: Any) -> Layout:
    return Layout(
        blocks="bert.encoder.layer",
        embed="bert.embeddings.word_embeddings",
        norm="cls.predictions.transform",
        head="cls.predictions.decoder",
        absent=dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), _NORMED),
    )


def _modernbert(config: Any) -> Layout:
    fused = {
        point: Site("attn.Wqkv", heads=True, spelled="batch position (part head d_head)", part=part)
        for part, point in enumerate("qkv")
    }
    return Layout(
        blocks="model.layers",
        embed="model.embeddings.tok_embeddings",
        norm="model.final_norm",
        head="decoder",
        sites={
            "attn_out": Site("attn"),
            "resid_mid": Site("mlp_norm", "input"),
            "mlp_out": Site("mlp"),
            **fused,
            "z": Site("attn.Wo", "input", heads=True),
            "ln2_scale": Site("mlp_norm", "input"),
            "mlp_post": Site("mlp.Wo", "input"),
        },
        attn_skip=(Fill("attn", _zeros_pair),),
        mlp_skip=(Fill("mlp", _zeros),),
        reads=("attn.Wqkv", "mlp.Wi"),
        writes=("attn.Wo", "mlp.Wo"),
    )


ENCODER_LAYOUTS: Mapping[str, Callable[[Any], Layout]] = MappingProxyType({"bert": _bert, "modernbert": _modernbert})
"""Model type -> layout, for encoders of transformers with a masked language model's head."""

"""BD3-LM and MDLM: diffusion transformers that are told the noise, by blocks and head that it modulates."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlens.axes import Resid, TokenIds, TokenMask
from dlens.models.family import Family, Fill, Inputs, Layout, Site

__all__ = ["BD3LM", "MDLM", "dit_layout", "noise_of", "sigma_of"]

# Of the log-linear schedule of both: the masked share at time t is (1 - EPS) t.
_EPS = 1e-3
_GATED = "the noise scales it on its way to the stream (adaLN), in no module of its own"


def noise_of(ids: TokenIds, attention_mask: TokenMask | None, mask_token_id: int | None) -> Float[Tensor, " batch"]:
    """The masked share of each row's real tokens, in float32.

    Examples:
        >>> noise_of(torch.tensor([[7, 7, 3, 4]]), None, 7).tolist()
        [0.5]
    """
    real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask
    return ((ids == mask_token_id) & real).sum(1).float() / real.sum(1)


def sigma_of(noise: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The total noise -log(1 - p) of MDLM's log-linear schedule at a masked share p, for which it takes (1 - 0.001) p.

    Source: Sahoo et al. 2024, arXiv:2406.07524, appendix E.1, and its `LogLinearNoise`.
    """
    return -torch.log1p(-(1 - _EPS) * noise)


def _told(ids: TokenIds, attention_mask: TokenMask | None, told: Inputs) -> dict[str, Any]:
    """The module zeroes the noise itself where it was trained without (`time_conditioning` of its config)."""
    sigma = sigma_of(noise_of(ids, attention_mask, told.mask_token_id))
    return {"input_ids": ids, "timesteps": sigma, "return_dict": True}


def _told_in_blocks(ids: TokenIds, attention_mask: TokenMask | None, told: Inputs) -> dict[str, Any]:
    """Sampling mode has the mask by blocks of the config; without it the module reads a noised and a clean half."""
    return _told(ids, attention_mask, told) | {"sample_mode": True}


BD3LM = Family(
    name="bd3lm",
    objective="diffusion",
    shift=0,
    mask_token_id=50257,
    model_types=("bd3lm",),
    inputs=Inputs(_told_in_blocks),
    block_length=16,
)

MDLM = Family(
    name="mdlm",
    objective="diffusion",
    shift=0,
    mask_token_id=50257,
    model_types=("mdlm",),
    inputs=Inputs(_told),
)


def _zeros(hidden: Resid, block: nn.Module) -> Tensor:
    return torch.zeros_like(hidden)


def _no_heads(hidden: Resid, block: nn.Module) -> Tensor:
    return hidden.new_zeros((*hidden.shape[:2], 3 * hidden.shape[2]))


def dit_layout(config: Any) -> Layout:
    """Where the parts of both are; the noise modulates the head, too, so that norm and head are not all of it."""
    # MDLM has no choice: its blocks are always modulated.
    gated = getattr(config, "adaln", True)
    sites = {
        "resid_mid": Site("norm2", "input"),
        "ln1_scale": Site("norm1", "input"),
        **{
            point: Site("attn_qkv", heads=True, spelled="batch position (part head d_head)", part=part)
            for part, point in enumerate("qkv")
        },
        "z": Site("attn_out", "input", heads=True),
        "ln2_scale": Site("norm2", "input"),
        "mlp_pre": Site("mlp.0"),
        "mlp_post": Site("mlp.2", "input"),
    }
    if not gated:
        sites |= {"attn_out": Site("attn_out"), "mlp_out": Site("mlp")}
    return Layout(
        blocks="backbone.blocks",
        embed="backbone.vocab_embed",
        norm="backbone.output_layer.norm_final",
        head="backbone.output_layer.linear",
        sites=sites,
        attn_skip=(Fill("attn_qkv", _no_heads), Fill("attn_out", _zeros)),
        mlp_skip=(Fill("mlp", _zeros),),
        absent={"attn_out": _GATED, "mlp_out": _GATED} if gated else {},
        reads=("attn_qkv", "mlp.0"),
        writes=("attn_out", "mlp.2"),
    )

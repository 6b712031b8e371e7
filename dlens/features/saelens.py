"""Folders of SAELens: cfg.json and sae_weights.safetensors, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlens.axes import parse_point
from dlens.checks import as_path, refuse
from dlens.features.autoencoder import SparseAutoencoder
from dlens.features.reading import read_config, read_tensors, take
from dlens.files import write_text, written

__all__ = ["CONFIG", "WEIGHTS", "read_saelens", "write_saelens"]

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

# The version whose form of cfg.json this is: older ones have other names for its fields.
_VERSION = "6.0.0"
_ARCHITECTURES = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_ARCHITECTURE_OF = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu"}


def read_saelens(folder: Path) -> SparseAutoencoder:
    """An autoencoder that SAELens 3 to 6 saved for inference: standard, topk or jumprelu.

    Raises:
        ValueError: another architecture, or a setting that dlens does not compute.
    """
    config = read_config(folder / CONFIG)
    metadata = {**config, **(config.get("metadata") or {})}
    activation = _activation(config, folder)
    _refuse_settings(config, folder)
    tensors = read_tensors(folder / WEIGHTS)
    encoder, decoder, bias, out = (take(tensors, name, folder) for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
    if config.get("rescale_acts_by_decoder_norm"):
        # Features count by the length of what they add; the same with rows of length 1.
        norm = decoder.norm(dim=-1)
        encoder, bias, decoder = encoder * norm, bias * norm, decoder / norm[:, None]
    return SparseAutoencoder(
        encoder=encoder,
        decoder=decoder,
        encoder_bias=bias,
        decoder_bias=out,
        activation=activation,
        k=_k(config, folder) if activation == "topk" else None,
        threshold=take(tensors, "threshold", folder) if activation == "jumprelu" else None,
        centred=config.get("apply_b_dec_to_input", True),
        normalize=config.get("normalize_activations") or "none",
        site=_site(metadata),
        model=metadata.get("model_name"),
        facts=metadata.get("facts") or {},
    )


def write_saelens(sae: SparseAutoencoder, folder: Any) -> None:
    """Write an autoencoder as SAELens 6 does; see `SparseAutoencoder.save`."""
    from safetensors.torch import save_file

    place = as_path(folder, "folder")
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURE_OF[sae.activation],
        "d_in": sae.d_model,
        "d_sae": sae.n_features,
        "dtype": str(sae.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": sae.normalize,
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _VERSION,
            "model_name": sae.model,
            "hook_name": sae.site,
            "facts": dict(sae.facts),
        },
    }
    config |= {"k": sae.k} if sae.k is not None else {}
    named = {"W_enc": sae.encoder, "W_dec": sae.decoder, "b_enc": sae.encoder_bias, "b_dec": sae.decoder_bias}
    named |= {} if sae.threshold is None else {"threshold": sae.threshold}
    # Without its config a folder is none of an autoencoder, so that no one reads old words with new weights.
    (place / CONFIG).unlink(missing_ok=True)
    with written(place / WEIGHTS) as beside:
        save_file({name: value.detach().cpu().contiguous() for name, value in named.items()}, beside)
    write_text(place / CONFIG, json.dumps(config, indent=1))


def _activation(config: Mapping[str, Any], folder: Path) -> Any:
    """The activation, which older versions named apart from the architecture."""
    architecture = config.get("architecture", "standard")
    older = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if architecture == "standard" and older == "topk":
        return "topk"
    if architecture not in _ARCHITECTURES or older not in ("relu", "topk"):
        known = ", ".join(_ARCHITECTURES)
        came = architecture if architecture not in _ARCHITECTURES else older
        refuse(f"architecture in {folder}", came, f"one of {known} with relu", "save it for inference in SAELens first")
    return _ARCHITECTURES[architecture]


def _k(config: Mapping[str, Any], folder: Path) -> int:
    k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
    if k is None:
        refuse(f"k in {folder}", k, "how many features a vector has", "add k to its cfg.json")
    return k


def _refuse_settings(config: Mapping[str, Any], folder: Path) -> None:
    normalize = config.get("normalize_activations") or "none"
    if normalize not in ("none", "layer_norm", "constant_norm_rescale"):
        refuse(
            f"normalize_activations in {folder}",
            normalize,
            "none, layer_norm or constant_norm_rescale",
            "fold its scale into the weights in SAELens (fold_activation_norm_scaling_factor) and save it again",
        )
    reshape = config.get("reshape_activations") or "none"
    if reshape != "none":
        refuse(f"reshape_activations in {folder}", reshape, "none", "take an autoencoder of the stream, not of heads")


def _site(metadata: Mapping[str, Any]) -> str | None:
    """Its hook point, where it is one of a block."""
    name = metadata.get("hook_name", metadata.get("hook_point"))
    try:
        return name if isinstance(name, str) and parse_point(name).layer is not None else None
    except ValueError:
        return None

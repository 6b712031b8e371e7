"""Folders of EleutherAI's sparsify: cfg.json and sae.safetensors."""

from __future__ import annotations

import re
from pathlib import Path

from dlens.axes import hook_name
from dlens.checks import refuse
from dlens.features.autoencoder import SparseAutoencoder
from dlens.features.reading import read_config, read_tensors, take

__all__ = ["CONFIG", "WEIGHTS", "read_sparsify"]

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

# A folder is named after the module whose output it was trained on, in words of transformers.
_MODULE = re.compile(
    r"(?:.*\.)?(?:layers|h|blocks)\.(?P<layer>\d+)(?P<half>\.mlp|\.self_attn|\.attn)?|layer_(?P<older>\d+)"
)
_POINTS = {None: "resid_post", ".mlp": "mlp_out", ".self_attn": "attn_out", ".attn": "attn_out"}


def read_sparsify(folder: Path) -> SparseAutoencoder:
    """A TopK autoencoder; its site is read from the folder's name, which is that of a module ("layers.10.mlp").

    Raises:
        ValueError: a transcoder, a skip connection, or another activation.
    """
    config = read_config(folder / CONFIG)
    for name, fine in {"transcode": False, "skip_connection": False, "signed": False, "activation": "topk"}.items():
        if config.get(name, fine) != fine:
            refuse(f"{name} in {folder}", config[name], f"{fine}", "take a TopK autoencoder that is no transcoder")
    k = config.get("k")
    if k is None:
        refuse(f"k in {folder}", k, "how many features a vector has", "add k to its cfg.json")
    tensors = read_tensors(folder / WEIGHTS)
    return SparseAutoencoder(
        encoder=take(tensors, "encoder.weight", folder).T.contiguous(),
        decoder=take(tensors, "W_dec", folder),
        encoder_bias=take(tensors, "encoder.bias", folder),
        decoder_bias=take(tensors, "b_dec", folder),
        activation="topk",
        k=k,
        site=_site(folder.resolve().name),
    )


def _site(name: str) -> str | None:
    found = _MODULE.fullmatch(name)
    return None if found is None else hook_name(_POINTS[found["half"]], int(found["layer"] or found["older"]))

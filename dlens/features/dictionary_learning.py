"""Folders of dictionary_learning, in which DLM-Scope's autoencoders come: config.json and ae.pt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlens.axes import hook_name
from dlens.checks import refuse
from dlens.features.autoencoder import Activation, SparseAutoencoder
from dlens.features.reading import read_config, take

__all__ = ["CONFIG", "WEIGHTS", "read_dictionary_learning"]

CONFIG, WEIGHTS = "config.json", "ae.pt"

_KINDS: Mapping[str, Activation] = {"AutoEncoderTopK": "topk", "BatchTopKSAE": "jumprelu", "AutoEncoder": "relu"}
_POINT = re.compile(r"(resid_post|resid_pre|attn_out|mlp_out)_layer_\d+")


def read_dictionary_learning(folder: Path) -> SparseAutoencoder:
    """An AutoEncoderTopK, a BatchTopKSAE by its threshold, or a plain AutoEncoder.

    Raises:
        ValueError: another class, or a file that is no such autoencoder.
    """
    trainer = read_config(folder / CONFIG).get("trainer") or {}
    kind = str(trainer.get("dict_class"))
    if kind not in _KINDS:
        refuse(f"dict_class in {folder}", kind, f"one of {', '.join(_KINDS)}", "take an autoencoder of these kinds")
    tensors = _tensors(folder / WEIGHTS)
    encoder = take(tensors, "encoder.weight", folder).T.contiguous()
    k: Any = tensors.get("k", trainer.get("k"))
    threshold = None
    if kind == "BatchTopKSAE":
        threshold = take(tensors, "threshold", folder).expand(encoder.shape[1]).clone()
    return SparseAutoencoder(
        encoder=encoder,
        decoder=take(tensors, "decoder.weight", folder).T.contiguous(),
        encoder_bias=take(tensors, "encoder.bias", folder),
        decoder_bias=take(tensors, "bias" if kind == "AutoEncoder" else "b_dec", folder),
        activation=_KINDS[kind],
        k=int(k) if kind == "AutoEncoderTopK" else None,
        threshold=threshold,
        site=_site(trainer, folder),
        model=trainer.get("lm_name"),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """The weights, unpickled as tensors alone."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    # Whatever an archive is made of, it is none of tensors.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); expected a state dict of tensors; copy the file again"
        ) from None
    return found if isinstance(found, dict) else {}


def _site(trainer: Mapping[str, Any], folder: Path) -> str | None:
    """The hook point, from the name of the module or of a folder above."""
    names = (str(trainer.get("submodule_name")), *(part.name for part in folder.resolve().parents), folder.name)
    point = next((found[1] for name in names if (found := _POINT.fullmatch(name))), None)
    return None if point is None or trainer.get("layer") is None else hook_name(point, int(trainer["layer"]))

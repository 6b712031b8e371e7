"""Sparse autoencoders as the code that published them computes them, in plain numpy, and folders as it writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import dlens

D_MODEL, FEATURES, K = 6, 10, 3


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights under SAELens's names."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D_MODEL, FEATURES), "W_dec": (FEATURES, D_MODEL), "b_enc": (FEATURES,), "b_dec": (D_MODEL,)}
    found = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    return found | {"threshold": torch.rand(FEATURES, generator=rng)}


def random_rows(n: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(seed))


def autoencoder(seed: int = 0, **given: Any) -> dlens.SparseAutoencoder:
    """One of random weights, TopK unless told otherwise."""
    w = random_weights(seed)
    settings: dict[str, Any] = {"activation": "topk", "k": K} | given
    return dlens.SparseAutoencoder(w["W_enc"], w["W_dec"], w["b_enc"], w["b_dec"], **settings)


def identity(d_model: int, site: str | None = None) -> dlens.SparseAutoencoder:
    """A perfect one: a feature for either sign of each channel."""
    eye = torch.eye(d_model)
    zeros = torch.zeros(2 * d_model), torch.zeros(d_model)
    return dlens.SparseAutoencoder(
        torch.cat([eye, -eye], 1), torch.cat([eye, -eye]), *zeros, activation="relu", site=site
    )


def encoded(x: np.ndarray, w: dict[str, torch.Tensor], architecture: str, centred: bool = True) -> np.ndarray:
    """Features of rows, row by row."""
    weights = {name: value.double().numpy() for name, value in w.items()}
    h = (x - weights["b_dec"] * centred) @ weights["W_enc"] + weights["b_enc"]
    if architecture == "jumprelu":
        return np.where(h > weights["threshold"], np.maximum(h, 0), 0)
    features = np.maximum(h, 0)
    if architecture == "topk":
        for row, values in zip(features, h, strict=True):
            row[np.argsort(values)[:-K]] = 0
    return features


def save_saelens(folder: Path, architecture: str = "topk", **config: Any) -> dict[str, torch.Tensor]:
    """A folder as SAELens 6 saves it for inference."""
    weights = random_weights()
    if architecture != "jumprelu":
        del weights["threshold"]
    settings: dict[str, Any] = {
        "d_in": D_MODEL,
        "d_sae": FEATURES,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.14.0",
            "sae_lens_training_version": "6.14.0",
            "model_name": "gpt2",
            "hook_name": "blocks.3.hook_resid_pre",
            "hook_head_index": None,
            "prepend_bos": True,
        },
        "architecture": architecture,
    }
    settings |= {"k": K} if architecture == "topk" else {}
    write(folder, "cfg.json", settings | config)
    save_file(weights, folder / "sae_weights.safetensors")
    return weights


def write(folder: Path, name: str, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config), encoding="utf-8")

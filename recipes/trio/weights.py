"""Checkpoints: a folder that plain transformers and dlens both load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.trio.objective import from_configuration

__all__ = ["plain_copy", "read_weights", "write_model"]


def plain_copy(model: Any) -> Any:
    """The model rounded to bfloat16, as it goes to disk, in float32, without anything compiled."""
    copy = from_configuration(model.config)
    copy.load_state_dict({name: value.bfloat16() for name, value in model.state_dict().items()})
    return copy.to(next(model.parameters()).device).eval()


def write_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write weights in bfloat16, configuration and tokenizer."""
    plain_copy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_weights(model: nn.Module, folder: Path) -> None:
    """Take the weights of a checkpoint."""
    from safetensors.torch import load_file

    found = load_file(folder / "model.safetensors")
    lacking, surplus = model.load_state_dict(found, strict=False)
    if surplus or set(lacking) - {"lm_head.weight"}:
        raise ValueError(f"{folder} lacks {lacking} and has {surplus}; expected the weights of this architecture")

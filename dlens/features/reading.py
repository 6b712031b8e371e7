"""Read the files of an autoencoder: its config, its weights, and what must be in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlens.checks import quoted

__all__ = ["read_config", "read_tensors", "take"]


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}); expected a JSON object; copy the file again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {quoted(found)}; expected a JSON object; copy the file again")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in float32 and on the CPU.

    Raises:
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}); expected safetensors; copy the file again") from None


def take(tensors: Mapping[str, Any], name: str, folder: Path) -> Tensor:
    """One tensor by its name, in float32.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(tensors.get(name), Tensor):
        held = ", ".join(sorted(tensors))
        raise ValueError(f"{folder} has the tensors {held}; expected {name} among them; is it an autoencoder's folder?")
    return tensors[name].to(torch.float32)

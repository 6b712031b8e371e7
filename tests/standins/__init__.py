"""Checkpoints with remote code of our own that keeps the contracts of LLaDA's and Dream's, for offline tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from dlens.models import compat

__all__ = ["build_remote", "save_dream", "save_llada"]

_HERE = Path(__file__).parent
_LLADA_MAP = {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"}
_DREAM_MAP = {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"}


def save_llada(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a LLaDA-shaped checkpoint with random weights; `hides_padding=False` makes one that ignores the mask.

    Args:
        folder: where `llada/` is written.
        seed: of the weights.
        config: changes of the small default config, such as n_layers=3 or weight_tying=True.

    Returns:
        The checkpoint folder, for `dlens.load(folder, trust_remote_code=True)`.
    """
    settings = {"model_type": "llada", "mask_token_id": 99, "eos_token_id": 98, "pad_token_id": 98}
    return _save(folder / "llada", _HERE / "llada", _LLADA_MAP, settings | config, seed)


def save_dream(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a Dream-shaped checkpoint with random weights.

    Args:
        folder: where `dream/` is written.
        seed: of the weights.
        config: changes of the small default config, such as num_hidden_layers=3.

    Returns:
        The checkpoint folder, for `dlens.load(folder, trust_remote_code=True)`.
    """
    settings = {"model_type": "Dream", "mask_token_id": 99, "eos_token_id": 98, "pad_token_id": 98}
    return _save(folder / "dream", _HERE / "dream", _DREAM_MAP, settings | config, seed)


def build_remote(folder: Path, seed: int = 0) -> Any:
    """The module of a saved checkpoint built straight from its class, with the weights it was saved with."""
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    config_class = get_class_from_dynamic_module(auto_map["AutoConfig"], str(folder))
    model_class = get_class_from_dynamic_module(auto_map["AutoModel"], str(folder))
    compat.prepare(model_class, config_class)
    module: Any = model_class(config_class.from_pretrained(str(folder))).eval()
    _fill(module, seed)
    return module


def _fill(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Norm weights stay near 1 and matrices are large enough for every token to matter.
        parameter.data.copy_(1 + 0.1 * noise if parameter.ndim == 1 else 0.2 * noise)


def _save(folder: Path, code: Path, auto_map: dict[str, str], settings: dict[str, Any], seed: int) -> Path:
    folder.mkdir(parents=True)
    for file in code.glob("*.py"):
        shutil.copy(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": auto_map}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 98, "pad_token_id": 98}))
    state = {name: value.contiguous() for name, value in build_remote(folder, seed).state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

"""Checkpoints with remote code of our own that keeps the contracts of public code, for offline tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from dlens.models import compat

__all__ = ["BLOCKS", "build_remote", "save_blocks", "save_dream", "save_llada"]

_HEADED = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModel")
_HERE = Path(__file__).parent
_LLADA_MAP = {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"}
# Model type -> its auto_map: config, and the class with the head; RND1 names the one without it, too.
BLOCKS: dict[str, dict[str, str]] = {
    kind: {"AutoConfig": f"configuration_blocks.{config}", **models}
    for kind, config, models in (
        ("llada2_moe", "LLaDA2MoeConfig", {"AutoModelForCausalLM": "modeling_blocks.LLaDA2MoeModelLM"}),
        ("sdar", "SDARConfig", {"AutoModelForCausalLM": "modeling_blocks.SDARForCausalLM"}),
        ("Fast_dLLM_Qwen", "FastConfig", {"AutoModelForCausalLM": "modeling_blocks.Fast_dLLM_QwenForCausalLM"}),
        ("lladamoe", "LLaDAMoEConfig", {"AutoModelForCausalLM": "modeling_blocks.LLaDAMoEModelLM"}),
        (
            "rnd1",
            "RND1Config",
            {"AutoModel": "modeling_blocks.RND1Model", "AutoModelForMaskedLM": "modeling_blocks.RND1LM"},
        ),
        ("bd3lm", "BD3LMConfig", {"AutoModelForMaskedLM": "modeling_dit.BD3LM"}),
        ("mdlm", "MDLMConfig", {"AutoModelForMaskedLM": "modeling_dit.MDLM"}),
    )
}
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


def save_blocks(folder: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """Write a checkpoint of a block diffusion family, or one of its kin, with random weights.

    Args:
        folder: where a folder of the kind's name is written.
        kind: a model type of `BLOCKS`.
        seed: of the weights.
        config: changes of the small default config, such as num_hidden_layers=2 or block_size=8.

    Returns:
        The checkpoint folder, for `dlens.load(folder, trust_remote_code=True)`.
    """
    settings = {"model_type": kind, "mask_token_id": 59, "eos_token_id": 57, "pad_token_id": 58}
    return _save(folder / kind, _HERE / "blocks", BLOCKS[kind], settings | config, seed)


def build_remote(folder: Path, seed: int = 0) -> Any:
    """The module of a saved checkpoint built straight from its class, with the weights it was saved with."""
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    reference = next(auto_map[name] for name in _HEADED if name in auto_map)
    with compat.importing():
        config_class = get_class_from_dynamic_module(auto_map["AutoConfig"], str(folder))
        model_class = get_class_from_dynamic_module(reference, str(folder))
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
    (folder / "generation_config.json").write_text(
        json.dumps({key: settings[key] for key in ("eos_token_id", "pad_token_id")})
    )
    state = {name: value.contiguous() for name, value in build_remote(folder, seed).state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

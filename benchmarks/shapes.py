"""Random weights at a given shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["llada_like", "qwen2_like", "remote_llada"]

_TINY = {
    "model_type": "llada",
    "block_type": "llama",
    "d_model": 128,
    "mlp_hidden_size": 256,
    "n_heads": 4,
    "n_layers": 3,
    "vocab_size": 512,
    "embedding_size": 512,
    "max_sequence_length": 512,
    "mask_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "include_bias": False,
    "include_qkv_bias": False,
    "weight_tying": False,
    "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig", "AutoModel": "modeling_llada.LLaDAModelLM"},
}


def qwen2_like() -> nn.Module:
    """A Qwen2 of 113 million random weights: 24 blocks, 576 channels, 9 heads, MLP 1728, vocabulary 16384."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=16384,
        hidden_size=576,
        intermediate_size=1728,
        num_hidden_layers=24,
        num_attention_heads=9,
        num_key_value_heads=9,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return _bidirectional(Qwen2ForCausalLM(config).eval())


def llada_like(device: str, n_layers: int = 32) -> nn.Module:
    """LLaDA-8B's shape in random bfloat16 weights, made where they stay.

    32 blocks, 4096 channels, 32 heads, MLP 12288, vocabulary 126464, bidirectional; the decoder is
    transformers' Llama, which computes the same products as LLaDA's.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=126464,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=n_layers,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            module = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    return _bidirectional(module)


def remote_llada(code: Path, folder: Path) -> Path:
    """Write a checkpoint of LLaDA's own code with tiny random weights: 3 blocks, 128 channels, MLP 256.

    Args:
        code: the folder with its `configuration_llada.py` and `modeling_llada.py`.
        folder: where it is written; it exists.

    Returns:
        The folder, for `dlens.load(folder, trust_remote_code=True)`.
    """
    from safetensors.torch import save_file
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    from dlens.models import compat

    for name in ("configuration_llada.py", "modeling_llada.py"):
        shutil.copy(code / name, folder)
    (folder / "config.json").write_text(json.dumps(_TINY))
    config, model = (get_class_from_dynamic_module(name, str(folder)) for name in _TINY["auto_map"].values())
    compat.prepare(model, config)
    module = model(config.from_pretrained(str(folder)))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for weight in module.parameters():
            _ = weight.fill_(1) if weight.ndim == 1 else weight.normal_(std=0.2)
    save_file(module.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _bidirectional(module: Any) -> nn.Module:
    module.config.is_causal = False
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    return module.requires_grad_(False)

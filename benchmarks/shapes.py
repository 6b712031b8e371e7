"""Random weights at a given shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["llada_like", "qwen2_like"]


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


def _bidirectional(module: Any) -> nn.Module:
    module.config.is_causal = False
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    return module.requires_grad_(False)

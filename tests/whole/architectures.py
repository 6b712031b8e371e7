"""Native decoders of each architecture, tiny and random, and where they keep their parts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.whole.operations import LLAMA, Names

SIZE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GQA: dict[str, Any] = SIZE | {"num_key_value_heads": 2, "head_dim": 8}
GEMMA = Names("model.layers", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
GPT2 = Names("transformer.h", "attn", "ln_2", "mlp")
NEOX = Names("gpt_neox.layers", "post_attention_dropout", "post_attention_layernorm", "post_mlp_dropout")
CONFIGS: dict[str, tuple[Any, Names]] = {
    "qwen2": (Qwen2Config(**SIZE, num_key_value_heads=2), LLAMA),
    "qwen3": (Qwen3Config(**GQA), LLAMA),
    "llama": (LlamaConfig(**GQA), LLAMA),
    "mistral": (MistralConfig(**GQA, sliding_window=6), LLAMA),
    "gemma": (GemmaConfig(**GQA), LLAMA),
    "gemma2": (Gemma2Config(**GQA, sliding_window=6), GEMMA),
    "gemma3": (
        Gemma3TextConfig(**GQA, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2),
        GEMMA,
    ),
    "gpt2": (GPT2Config(vocab_size=100, n_embd=32, n_layer=4, n_head=4, n_positions=64), GPT2),
    "pythia": (GPTNeoXConfig(**SIZE, use_parallel_residual=False), NEOX),
}


def build(config: Any) -> Any:
    """A model of random weights, the same at every call; it never ends a text by itself."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        # Large enough for blocks and positions to matter.
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    module.generation_config.eos_token_id = None
    return module

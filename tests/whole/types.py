"""A tiny random model of every type that transformers lists, made from its config alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

__all__ = ["CAUSAL", "MASKED", "N_LAYERS", "tiny"]

CAUSAL = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MASKED = tuple(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
N_LAYERS = 4

_SIZES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (N_LAYERS, ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")),
    (
        4,
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
            "num_heads",
            "num_experts",
            "num_local_experts",
            "n_routed_experts",
            "moe_num_experts",
            "mamba_n_heads",
            "mamba_num_heads",
            "linear_num_value_heads",
            "rotary_dim",
            "qk_rope_head_dim",
            "num_lightning_heads",
        ),
    ),
    (
        2,
        (
            "num_key_value_heads",
            "n_kv_heads",
            "num_kv_heads",
            "kv_n_head",
            "num_experts_per_tok",
            "moe_top_k",
            "moe_k",
            "linear_num_key_heads",
            "mamba_n_groups",
            "n_groups",
            "num_experts_per_token",
            "top_k_experts",
            "num_global_key_value_heads",
        ),
    ),
    (
        1,
        (
            "n_group",
            "topk_group",
            "n_shared_experts",
            "num_expert_group",
            "first_k_dense_replace",
            "num_shared_experts",
        ),
    ),
    (
        8,
        (
            "head_dim",
            "global_head_dim",
            "qk_nope_head_dim",
            "v_head_dim",
            "linear_key_head_dim",
            "linear_value_head_dim",
            "swa_head_dim",
            "index_head_dim",
        ),
    ),
    (
        16,
        (
            "q_lora_rank",
            "kv_lora_rank",
            "mamba_d_state",
            "state_size",
            "ssm_state_size",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "mamba_d_head",
            "mamba_head_dim",
            "hidden_size_per_layer_input",
            "moe_shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "mamba_dt_rank",
            "time_step_rank",
        ),
    ),
    (
        32,
        (
            "hidden_size",
            "d_model",
            "n_embd",
            "emb_dim",
            "embedding_size",
            "word_embed_proj_dim",
            "d_embed",
            "lru_width",
            "attention_hidden_size",
            "dim",
        ),
    ),
    (
        48,
        (
            "intermediate_size",
            "ffn_dim",
            "n_inner",
            "d_inner",
            "decoder_ffn_dim",
            "encoder_ffn_dim",
            "dff",
            "intermediate_size_mlp",
            "ffn_hidden_size",
            "dense_intermediate_size",
            "hidden_dim",
        ),
    ),
    (64, ("max_position_embeddings", "n_positions", "max_sequence_length", "mamba_d_ssm", "max_seq_len", "n_ctx")),
    (100, ("vocab_size", "vocab_size_per_layer_input")),
    (6, ("sliding_window", "attention_window_size", "local_attention_window")),
)
_SMALL: Mapping[str, int] = {name: size for size, names in _SIZES for name in names}
_SOMETIMES_NONE = (
    "num_key_value_heads",
    "head_dim",
    "num_experts_per_tok",
    "n_shared_experts",
    "n_routed_experts",
    "moe_intermediate_size",
)
# What some types want beside small sizes, as their own checks of the config say.
_OWN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "use_mamba_kernels": False},
        "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 6},
        "bamba": {"attn_layer_indices": [1, 3]},
        "dbrx": {
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
        "dots1": {"n_routed_experts": 4, "first_k_dense_replace": 2},
        "gemma3n_text": {"num_kv_shared_layers": 0},
        "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 2},
        "mamba2": {"head_dim": 16},
    }
)


def tiny(model_type: str, masked: bool = False) -> torch.nn.Module:
    """A model of random weights, the same at every call; it never ends a text by itself.

    Args:
        model_type: one of `CAUSAL`, or of `MASKED` where so asked.
        masked: the class that fills masks.
    """
    torch.manual_seed(0)
    config = _small(CONFIG_MAPPING[model_type](), not masked)
    auto: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = auto.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        # Large enough for blocks and positions to matter.
        if parameter.is_floating_point():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    if getattr(module, "generation_config", None) is not None:
        module.generation_config.eos_token_id = None
    for config in (module.config, module.config.get_text_config()):
        config.eos_token_id = None
    return module


def _small(config: PreTrainedConfig, causal: bool) -> PreTrainedConfig:
    """The same kind of config with small sizes, in all its parts."""
    settings, own = config.to_dict(), _OWN.get(config.model_type, {})
    changed: dict[str, Any] = {
        name: size for name, size in _SMALL.items() if isinstance(settings.get(name), int) and settings[name] > 1
    }
    changed |= {name: i for i, name in enumerate(("pad_token_id", "bos_token_id", "eos_token_id")) if name in settings}
    changed |= {name: 3 for name in settings if name.endswith("_token_id") and name not in changed}
    if isinstance(settings.get("layer_types"), list):
        kinds = list(dict.fromkeys(settings["layer_types"]))
        changed["layer_types"] = [kinds[i % len(kinds)] for i in range(N_LAYERS)]
    if settings.get("kv_lora_rank"):  # attention whose keys come of one small vector has a key for every query
        changed |= {"num_key_value_heads": 4, "head_dim": 4} if "head_dim" in settings else {"num_key_value_heads": 4}
    if causal and "is_decoder" in settings:
        changed["is_decoder"] = True
    changed |= {name: _SMALL[name] for name in _SOMETIMES_NONE if name in settings and settings[name] is None}
    for name, part in vars(config).items():
        if isinstance(part, PreTrainedConfig):
            changed[name] = _small(part, causal).to_dict()
    return type(config)(**(changed | dict(own)))

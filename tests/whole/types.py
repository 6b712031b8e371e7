"""A tiny random model of every type that transformers lists, made from its config alone."""

from __future__ import annotations

import re
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
N_LAYERS = 3

_DEPTH = r"(num_hidden|num|n|decoder|encoder|num_decoder|num_encoder)_layers?|depth"
# What a field is called -> the most that it is made; the first name that fits.
_SIZES: tuple[tuple[str, int], ...] = (
    (r".*vocab.*", 100),
    (r"n_group|topk_group|(moe_)?n(um)?_(shared_experts|expert_group)|first_k_dense_replace", 1),
    (r"num_experts_per_tok(en)?|moe_topk|moe_top_k|moe_k|top_k_experts|zero_expert_num", 2),
    (r".*(kv|key|key_value)_heads?|kv_n_heads?|.*n_?groups", 2),
    (r"rotary_dim|qk_rope_head_dim", 4),
    (r"mamba_(d_head|head_dim)|.*_rank|.*state(_size)?|.*_per_layer_input", 16),
    (r"(.*_)?d_head|.*(head_dim|head_size)|(mamba_)?chunk_size", 8),
    (r".*heads?|.*experts", 4),
    (r"(moe|.*expert.*)_(intermediate|hidden)_size", 16),
    (r".*(intermediate_size(_mlp)?|(ffn|hidden|ff)_dim|inner|dff|ffn_hidden_size|feed_forward_size)", 48),
    (
        r".*hidden_size(_global)?|d_model|n_embd|.*emb(ed)?_dim|embedding_size|.*proj_dim|d_embed|lru_width|dim|adapter_.*(dim|size)",
        32,
    ),
    (r".*position(_embedding)?s|n_ctx|max_seq(uence)?_len(gth)?|mamba_d_ssm", 64),
    (r"sliding_window(_size)?|attention_window_size|local_attention_window", 6),
)
# Left open by some configs, with what follows from it.
_OPEN: Mapping[str, int] = MappingProxyType(
    {
        "vocab_size": 100,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_routed_experts": 4,
        "moe_intermediate_size": 16,
    }
)
# Attention reads the stream beside what the model began with; at least two blocks share it.
_ZAMBA: Mapping[str, Any] = {
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "layers_block_type": ["hybrid", "linear_attention", "hybrid"],
}
# What some types want beside small sizes, as their own checks of the config say.
_OWN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "bamba": {"attn_layer_indices": [1]},
        "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
        "dbrx": {
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
        "gemma3n_text": {"num_kv_shared_layers": 0},
        "gemma4_text": {"global_head_dim": 16},
        "gemma4_unified_text": {"global_head_dim": 16},
        "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 6},
        "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "use_mamba_kernels": False},
        "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
        "longcat_flash": {"qk_head_dim": 12},
        "mamba2": {"head_dim": 16},
        "mllama_text_model": {"cross_attention_layers": []},
        # Past its window transformers' own decoding with a cache gives other tokens than without.
        "moshi": {"sliding_window": 64},
        "mobilebert": {"intra_bottleneck_size": 32},
        "qwen4_exp_text": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 4,
            "indexer_compress_ratio": 2,
        },
        "reformer": {
            "attn_layers": ["local", "lsh", "local"],
            "axial_pos_embds_dim": [16, 16],
            "axial_pos_shape": [8, 8],
            "feed_forward_size": 48,
        },
        "xmod": {"default_language": "en_XX"},
        "zamba": _ZAMBA,
        "zamba2": _ZAMBA,
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
    settings = config.to_dict()
    deep = next((settings[name] for name in settings if re.fullmatch(_DEPTH, name)), None)
    changed = {name: _sized(name, value, deep) for name, value in settings.items()}
    changed = {name: value for name, value in changed.items() if value != settings[name]}
    changed |= {name: size for name, size in _OPEN.items() if name in settings and settings[name] is None}
    if settings.get("kv_lora_rank"):  # attention whose keys come of one small vector has a key for every query
        changed |= {"num_key_value_heads": 4} | ({"head_dim": 4} if "head_dim" in settings else {})
    if causal and "is_decoder" in settings:
        changed["is_decoder"] = True
    for name, part in vars(config).items():
        if isinstance(part, PreTrainedConfig):
            changed[name] = _small(part, causal).to_dict()
    return type(config)(**(changed | dict(_OWN.get(config.model_type, {}))))


def _sized(name: str, value: Any, deep: int | None) -> Any:
    """A small value for a field: numbers by its name, lists by layer with each kind of layer in turn."""
    if name.endswith(("_token_id", "_token_index")):
        return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}.get(name, 3)
    if isinstance(value, (list, tuple)) and value and len(value) == deep:
        kinds = list(dict.fromkeys(value))
        return [_sized(name, kinds[layer % len(kinds)], None) for layer in range(N_LAYERS)]
    if type(value) is not int:
        return value
    if re.fullmatch(_DEPTH, name):
        return N_LAYERS
    fitting = (size for pattern, size in _SIZES if re.fullmatch(pattern, name))
    return min(value, next(fitting, value))

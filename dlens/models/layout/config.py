"""What a model's config says, whatever its architecture calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["depths", "n_heads", "n_kv_heads", "n_positions", "width"]

_CONTEXT_NAMES = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "model_length", "context_length")
_HEAD_NAMES = ("num_attention_heads", "n_heads", "n_head")
_KV_HEAD_NAMES = ("num_key_value_heads", "effective_n_kv_heads", "n_kv_heads")
_DEPTH_NAMES = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_WIDTH_NAMES = ("hidden_size", "d_model", "n_embd")


def n_heads(config: Any) -> int | None:
    """Attention heads of a block; None where it says nothing of heads, as that of a model without attention."""
    return _number(config, _HEAD_NAMES)


def n_kv_heads(config: Any) -> int | None:
    """Heads of keys and values of a block; None where it does not say.

    Examples:
        >>> from transformers import LlamaConfig
        >>> n_heads(LlamaConfig()), n_kv_heads(LlamaConfig(num_key_value_heads=4))
        (32, 4)
    """
    return _number(config, _KV_HEAD_NAMES) or None


def n_positions(config: Any) -> int | None:
    """Longest sequence that the model takes; None where it does not say."""
    found = (_number(config, (name,)) for name in _CONTEXT_NAMES)
    return next((value for value in found if value), None)


def depths(config: Any) -> tuple[int, ...]:
    """Every number that it gives for the blocks; more than one where each counts as two layers (LongCat-Flash)."""
    found = (_number(config, (name,)) for name in _DEPTH_NAMES)
    return tuple(dict.fromkeys(value for value in found if value is not None))


def width(config: Any) -> int | None:
    """Channels of the residual stream; None where it does not say."""
    return _number(config, _WIDTH_NAMES)


def _number(config: Any, names: Sequence[str]) -> int | None:
    found = (_said(config, name) for name in names)
    return next((int(value) for value in found if isinstance(value, (int, float))), None)


def _said(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # of a config whose layers differ in it
        return None

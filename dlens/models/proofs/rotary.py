"""Rotary frequencies by the formulas of the papers, in plain numbers: what a checkpoint's own code must arrive at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["RULES", "frequencies"]

Rule = Callable[[list[float], float, Mapping[str, Any]], list[float]]


def frequencies(config: Any, rule: str) -> list[float]:
    """Radians a position of each pair of rotated channels.

    Args:
        config: of the model: the width of a head, the share of it that is rotated, base and parameters of the rule.
        rule: one of `RULES`.

    Returns:
        As many as half the rotated width.

    Examples:
        >>> from types import SimpleNamespace
        >>> settings = {"head_dim": 8, "partial_rotary_factor": 0.5, "rope_theta": 100.0}
        >>> frequencies(SimpleNamespace(to_dict=lambda: settings), "default")
        [1.0, 0.1]
    """
    settings = config.to_dict()
    given = (settings.get(name) for name in ("rope_scaling", "rope_parameters"))
    parameters = dict(settings) | {key: value for held in given for key, value in (held or {}).items()}
    head = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    width = int(head * (parameters.get("partial_rotary_factor") or 1.0))
    base = float(parameters["rope_theta"])
    return RULES[rule]([base ** (-pair / width) for pair in range(0, width, 2)], base, parameters)


def _as_trained(plain: list[float], base: float, parameters: Mapping[str, Any]) -> list[float]:
    """RoFormer, arXiv:2104.09864, section 3.2.2; and dynamic scaling, as long as no text is longer than in training."""
    return plain


def _linear(plain: list[float], base: float, parameters: Mapping[str, Any]) -> list[float]:
    """Position interpolation, arXiv:2306.15595, equation 4."""
    return [frequency / parameters["factor"] for frequency in plain]


def _llama3(plain: list[float], base: float, parameters: Mapping[str, Any]) -> list[float]:
    """Llama 3.1: long waves are stretched, short ones kept, those between blended by how often they turn."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    trained = parameters["original_max_position_embeddings"]

    def scaled(frequency: float) -> float:
        turns = trained * frequency / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        return frequency * (kept + (1 - kept) / parameters["factor"])

    return [scaled(frequency) for frequency in plain]


def _yarn(plain: list[float], base: float, parameters: Mapping[str, Any]) -> list[float]:
    """YaRN, arXiv:2309.00071, section 3.2: the blend of `_llama3`, over the pairs' numbers."""
    trained = parameters["original_max_position_embeddings"]
    factor = parameters.get("factor") or parameters["max_position_embeddings"] / trained

    def pair(turns: float) -> float:
        return len(plain) * math.log(trained / (2 * math.pi * turns)) / math.log(base)

    first, last = pair(parameters.get("beta_fast") or 32), pair(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * len(plain) - 1)
    span = last - first or 0.001
    stretched = [min(1.0, max(0.0, (number - first) / span)) for number in range(len(plain))]
    return [f * (1 - s + s / factor) for f, s in zip(plain, stretched, strict=True)]


def _longrope(plain: list[float], base: float, parameters: Mapping[str, Any]) -> list[float]:
    """LongRoPE, arXiv:2402.13753, with the factors of texts no longer than in training."""
    return [frequency / factor for frequency, factor in zip(plain, parameters["short_factor"], strict=True)]


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "default": _as_trained,
        "dynamic": _as_trained,
        "linear": _linear,
        "llama3": _llama3,
        "yarn": _yarn,
        "longrope": _longrope,
    }
)
"""Rule, as `rope_type` names it -> how it changes the plain frequencies."""

"""Rotary frequencies by formula, against those that transformers computes by its own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.glm.modeling_glm import GlmConfig, GlmRotaryEmbedding

from dlens.models.proofs.rotary import RULES, frequencies

SHAPES: dict[str, dict[str, Any]] = {
    "dynamic": {"factor": 4.0},
    "linear": {"factor": 2.5},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "longrope": {"short_factor": [1.0 + i for i in range(8)], "long_factor": [2.0] * 8, "factor": 2.0,
                 "original_max_position_embeddings": 512},
}  # fmt: skip


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("rule", SHAPES)
def test_every_rule_gives_what_transformers_computes(rule: str, share: float) -> None:
    settings = {"rope_type": rule, "rope_theta": 10000.0, "partial_rotary_factor": share, **SHAPES[rule]}
    config = LlamaConfig(head_dim=int(16 / share), max_position_embeddings=2048, rope_parameters=settings)
    expected = ROPE_INIT_FUNCTIONS[rule](config, None)[0]
    assert len(expected) == 8
    torch.testing.assert_close(torch.tensor(frequencies(config, rule)), expected, rtol=4e-6, atol=0)
    assert set(SHAPES) | {"default"} == set(RULES)


def test_half_a_head_is_rotated() -> None:
    config = GlmConfig(head_dim=16, rope_parameters={"rope_theta": 10000.0, "partial_rotary_factor": 0.5})
    expected = GlmRotaryEmbedding(config).inv_freq
    torch.testing.assert_close(torch.tensor(frequencies(config, "default")), expected)
    assert frequencies(config, "default") == pytest.approx([1.0, 0.1, 0.01, 0.001])

"""Halves whose modules return another form are not skipped alone; a pattern need not be returned to be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dlens
from dlens.models.families.decoder import llama_like
from tests.models.conftest import build

IDS = torch.arange(3, 15)[None]


class Longer(nn.Module):
    """Attention that returns one thing more."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.own = attention
        self.o_proj = attention.o_proj  # pyright: ignore

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (*self.own(*args, **kwargs), "cache")


class Alone(nn.Module):
    """Attention that returns its output alone."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.own, self.o_proj = attention, attention.o_proj

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.own(*args, **kwargs)[0]


class First(nn.Module):
    """A block that takes the first of what attention returns."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = block.input_layernorm, block.post_attention_layernorm
        self.self_attn, self.mlp = Longer(block.self_attn), block.mlp

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + (attended[0] if isinstance(attended, tuple) else attended)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


def test_a_half_of_another_form_cannot_be_skipped_alone() -> None:
    module = build("qwen2")
    for layer in range(4):
        module.model.layers[layer] = First(module.model.layers[layer])
    trace = dlens.trace(dlens.load(module, layout=llama_like()))
    with pytest.raises(ValueError, match="attn_skip, or skip the whole block"):
        trace.skip([1], part="attn")
    expected = dlens.trace(build("qwen2")).skip([2], part="mlp").skip([1]).capture("logits").forward(IDS)["logits"]
    assert torch.equal(trace.skip([2], part="mlp").skip([1]).capture("logits").forward(IDS)["logits"], expected)


def test_a_pattern_that_attention_does_not_return() -> None:
    expected = dlens.trace(build("qwen2")).capture("pattern", "z").forward(IDS)
    module = build("qwen2")
    for layer in range(4):
        module.model.layers[layer] = First(module.model.layers[layer])
        module.model.layers[layer].self_attn = Alone(module.model.layers[layer].self_attn)
    record = dlens.trace(module).capture("pattern", "z").forward(IDS)
    assert torch.equal(record["pattern"], expected["pattern"]) and torch.equal(record["z"], expected["z"])
    with pytest.raises(ValueError, match="has no q: its block 0 has no 'self_attn.q_proj'"):
        dlens.trace(dlens.load(module, layout=llama_like())).capture("q")

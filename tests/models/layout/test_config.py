"""What a config says under the names of each architecture."""

from __future__ import annotations

from types import SimpleNamespace

import transformers

from dlens.models.layout import config


def test_names_of_several_architectures() -> None:
    gpt2 = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=64)
    facts = [config.n_heads(gpt2), config.n_kv_heads(gpt2), config.n_positions(gpt2), config.depths(gpt2)]
    assert facts == [4, None, 64, (3,)] and config.width(gpt2) == 32


def test_blocks_that_count_as_two_layers_each() -> None:
    assert config.depths(transformers.LongcatFlashConfig(num_layers=3)) == (6, 3)


def test_what_is_not_said_is_none() -> None:
    nothing = SimpleNamespace(num_attention_heads=None, model_length=16)
    assert config.n_heads(nothing) is None and config.n_positions(nothing) == 16

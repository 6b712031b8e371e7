"""Rotary frequencies that loading lost are found, and buffers without a rule are refused."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens.errors import VerificationError
from tests.models.conftest import build


def test_lost_rotary_frequencies_of_a_native_model() -> None:
    for name, buffer in (("llama", "inv_freq"), ("gemma3", "sliding_attention_inv_freq")):
        module = build(name)
        getattr(module.model.rotary_emb, buffer)[1] *= 1.01
        with pytest.raises(VerificationError, match=f"rotary_emb.{buffer} of .* begins .*; expected .*recomputed"):
            dlens.load(module)


def test_lost_rotary_frequencies_of_remote_code(dream: dlens.Model) -> None:
    dream.module.model.rotary_emb.inv_freq[1] = 0.5
    with pytest.raises(VerificationError, match="model.rotary_emb.inv_freq of .* begins"):
        dlens.load(dream.module)


def test_a_buffer_of_remote_code_without_a_rule(dream: dlens.Model) -> None:
    dream.module.model.register_buffer("table", torch.ones(2), persistent=False)
    with pytest.raises(VerificationError, match="buffer model.table of .* is in no checkpoint"):
        dlens.load(dream.module)
    assert dlens.load(dream.module, verify=False).n_layers == 4

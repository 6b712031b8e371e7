"""Rotary frequencies that loading lost are found, and buffers without a rule are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import dlens
from dlens.errors import VerificationError
from dlens.models import compat
from dlens.models.compat import default_rope
from dlens.models.proofs.buffers import check_rotary
from dlens.models.proofs.rotary import frequencies
from tests.models.conftest import SIZE, build

LAYERS = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]


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


def test_a_shim_that_is_wrong_is_found(dream: dlens.Model) -> None:
    for _, part in compat.rope_parts(dream.module):
        part.rope_init_fn = lambda *_, **__: (torch.tensor([0.9, 0.09, 0.009, 0.0009]), 1.0)  # pyright: ignore
    compat.repair(dream.module)
    with pytest.raises(VerificationError, match=r"rotary_emb.inv_freq of .* begins \[0.8999"):
        dlens.load(dream.module)


def test_the_shim_rotates_the_share_that_the_config_says() -> None:
    for settings in (
        {"head_dim": 16, "partial_rotary_factor": 0.5, "rope_theta": 100.0},
        {"head_dim": 16, "rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 100.0}},
    ):
        config: Any = SimpleNamespace(to_dict=lambda settings=settings: settings)
        found = default_rope(config)[0]
        torch.testing.assert_close(found, torch.tensor(frequencies(config, "default")))
        assert len(found) == 4


@pytest.mark.parametrize(
    "config",
    [
        transformers.PhimoeConfig(**SIZE, num_local_experts=2, num_experts_per_tok=1),
        transformers.Gemma4TextConfig(**SIZE, hidden_size_per_layer_input=0, layer_types=LAYERS),
    ],
    ids=lambda config: config.model_type,
)
def test_modules_that_make_their_frequencies_in_their_own_way(config: Any) -> None:
    torch.manual_seed(0)
    model = dlens.load(transformers.AutoModelForCausalLM.from_config(config).eval(), verify=False)
    check_rotary(model)
    rotary = next(part for name, part in model.module.named_modules() if name.endswith("rotary_emb"))
    name = next(name for name in rotary._buffers if name.endswith("inv_freq"))
    rotary._buffers[name][0] = 0.5  # pyright: ignore
    with pytest.raises(VerificationError, match="begins"):
        check_rotary(model)


def test_frequencies_that_cannot_be_made_again_are_named() -> None:
    module = build("llama")

    class Own(type(module.model.rotary_emb)):
        def __init__(self, config: Any, must: Any) -> None:
            super().__init__(config)

    module.model.rotary_emb = Own(module.config, 1)
    with pytest.warns(dlens.UnprovedWarning, match="rotary frequencies of .* at 'model.rotary_emb' were not proved"):
        dlens.load(module)

"""BERT and ModernBERT, tiny and random, as models that fill masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import dlens
from tests.models.families.remote import (
    a_skipped_half_adds_nothing,
    padded_logits_equal_unpadded_ones,
    the_stream_adds_up,
)

# nnsight serves `output` on every module, and BERT has parts of that name.
pytestmark = pytest.mark.filterwarnings("ignore:Module .* has a submodule named:UserWarning")

SIZE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "mask_token_id": 99,
    "initializer_range": 0.2,
}


def build(kind: str) -> Any:
    config = {
        "bert": lambda: transformers.BertConfig(**SIZE),
        "modernbert": lambda: transformers.ModernBertConfig(
            **SIZE, global_attn_every_n_layers=1, reference_compile=False
        ),
    }[kind]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForMaskedLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_facts(kind: str) -> None:
    model = dlens.load(build(kind))
    assert (model.family.name, model.family.mask_token_id, model.n_layers, model.d_model) == ("masked", 99, 3, 32)
    assert model.honours_padding
    padded_logits_equal_unpadded_ones(model)
    record = dlens.trace(model).skip([1]).generate([[5, 6, 7], [8, 9]], 4)
    assert record.n_steps == 4


def test_a_class_that_is_read_from_left_to_right_is_autoregressive() -> None:
    config = transformers.BertConfig(**SIZE, is_decoder=True)
    assert dlens.load(transformers.BertLMHeadModel(config).eval()).family.name == "autoregressive"


def test_a_logit_lens_is_what_follows_the_last_block() -> None:
    trace = dlens.trace(build("bert")).measure(dlens.LogitLens())
    assert float(trace.forward([[5, 6, 7]]).measures["logit_lens"]["kl"].isel(layer=-1).max()) < 1e-9
    # ModernBERT has a layer more between its last norm and its head.
    with pytest.raises(dlens.VerificationError, match="norm and head of ModernBert.* differ from its own"):
        dlens.trace(build("modernbert")).measure(dlens.LogitLens()).forward([[5, 6, 7]])


def test_the_stream_of_modernbert_adds_up() -> None:
    model = dlens.load(build("modernbert"))
    the_stream_adds_up(model)
    a_skipped_half_adds_nothing(model)


def test_halves_of_bert_are_normed_after_each_sum() -> None:
    model = dlens.load(build("bert"))
    assert model.layout.sum_norms == ("attention.output.LayerNorm", "output.LayerNorm")
    with pytest.raises(ValueError, match="has no resid_mid: its norms follow the sums"):
        dlens.trace(model).capture("resid_mid")
    ids = torch.tensor([[5, 6, 7]])
    record = (
        dlens.trace(model)
        .capture("resid_pre", "attn_out", layers=1)
        .skip([1], part="mlp")
        .capture("resid_post", layers=1)
    )
    found, block = record.forward(ids), build("bert").bert.encoder.layer[1]
    with torch.no_grad():
        middle = block.attention.output.LayerNorm(found["resid_pre"][0] + found["attn_out"][0])
        assert torch.equal(found["resid_post"][0], block.output.LayerNorm(middle))


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_checkpoint_is_loaded_with_the_head_that_it_names(kind: str, tmp_path: Any) -> None:
    module = build(kind)
    module.save_pretrained(tmp_path)
    model = dlens.load(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(model.module(ids).logits, module(ids).logits)

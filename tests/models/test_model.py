"""Facts of a model, its copies, its lock and what it keeps."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import decoders
from torch import nn

import dlens
from dlens.models.families.decoder import MASKED
from tests.models.conftest import build
from tests.models.wrapped import traced


def test_a_copied_model_acts_on_its_copy() -> None:
    model = dlens.load(build("qwen2"))
    expected = traced(model)
    twin = copy.deepcopy(model)
    assert twin.module is not model.module and twin.nnsight is not model.nnsight
    assert torch.equal(traced(twin), expected)
    twin.module.model.embed_tokens.weight.data.mul_(2)
    assert not torch.equal(traced(twin), expected)
    assert torch.equal(traced(model), expected)


def test_the_lock_belongs_to_the_module() -> None:
    module = build("qwen2")
    assert dlens.load(module).lock is dlens.load(module).lock
    assert dlens.load(module).lock is not dlens.load(copy.deepcopy(module)).lock


def test_what_was_found_is_kept_for_one_name_alone() -> None:
    model = dlens.load(build("qwen2"))
    model.kept("a kind", "first")["key"] = 1
    assert model.kept("a kind", "first") == {"key": 1} and model.kept("another kind", "first") == {}
    assert model.kept("a kind", "second") == {} == model.kept("a kind", "first")


def test_padding_is_never_the_mask_nor_outside_the_embedding(diffusion: dlens.Model) -> None:
    assert diffusion.pad_token_id == 0
    family = replace(diffusion.family, mask_token_id=0)
    assert replace(diffusion, family=family).pad_token_id == 1
    model = dlens.load(build("qwen2", eos_token_id=[500, 7]))
    assert (model.eos_token_id, model.pad_token_id) == (500, 0)


def test_context_length() -> None:
    assert dlens.load(build("gpt2")).n_positions == 64
    assert dlens.load(build("pythia")).n_positions == 64


def test_a_model_that_was_loaded_by_name_is_pickled_as_its_name(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3]).capture("logits")
    sent = pickle.dumps(trace)
    assert len(sent) < 5000
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first.model is second.model is not diffusion and str(first) == str(trace)
    assert torch.equal(first.forward("Once upon")["logits"], trace.forward("Once upon")["logits"])
    assert copy.copy(diffusion).module is diffusion.module


def test_a_family_and_a_tokenizer_go_along() -> None:
    family = replace(MASKED, name="mine")
    model = dlens.load(dlens.load("trio/diffusion", verify=False), family=family)
    again = pickle.loads(pickle.dumps(model))
    assert again.family == model.family and again.family.name == "mine"


def test_a_changed_model_is_not_taken_for_the_one_of_its_name() -> None:
    model = dlens.load("trio/ar", verify=False)
    with torch.no_grad():
        model.module.model.norm.weight.mul_(2)  # pyright: ignore
    sent = pickle.dumps(model)
    with pytest.raises(ValueError, match="trio/ar was pickled with other weights, .*; expected the same; save"):
        pickle.loads(sent)


def test_what_was_replaced_goes_along(diffusion: dlens.Model) -> None:
    family = replace(diffusion.family, mask_token_id=5, shift=1)
    changed = replace(diffusion, family=family, honours_padding=False, name="mine")
    again = pickle.loads(pickle.dumps(changed))
    assert (again.family, again.honours_padding, again.name) == (family, False, "mine")
    assert pickle.loads(pickle.dumps(diffusion)).family == diffusion.family


def test_a_changed_tokenizer_is_not_taken_for_the_one_of_its_name(diffusion: dlens.Model) -> None:
    tokenizer = copy.deepcopy(diffusion.tokenizer)
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    sent = pickle.dumps(replace(diffusion, tokenizer=tokenizer))
    with pytest.raises(
        ValueError, match="trio/diffusion was pickled with another tokenizer than .*; expected .*; save"
    ):
        pickle.loads(sent)


def test_a_model_of_a_module_says_how_it_could_be_pickled() -> None:
    with pytest.raises(TypeError, match="Qwen2ForCausalLM was made of a torch module .*; expected .*; save the module"):
        pickle.dumps(dlens.trace(build("qwen2")).skip([1]))


class Table(nn.Module):
    """An embedding whose matrix has another name."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.table = embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]


def test_an_embedding_of_another_make() -> None:
    module, ids = build("llama"), torch.arange(3, 12)[None]
    expected = dlens.trace(module).skip([1]).capture("logits").forward(ids)["logits"]
    module.model.embed_tokens = Table(module.model.embed_tokens)
    model = dlens.load(module)
    assert (model.vocab_size, model.d_model, model.device.type, model.dtype) == (100, 32, "cpu", torch.float32)
    assert torch.equal(dlens.trace(model).skip([1]).capture("logits").forward(ids)["logits"], expected)


def test_other_names_of_the_context_length() -> None:
    for name in ("max_seq_len", "model_length"):
        config: Any = SimpleNamespace(**{name: 48})
        config.get_text_config = lambda config=config: config
        module = nn.Module()
        module.config = config
        assert replace(dlens.load(build("gpt2"), verify=False), module=module).n_positions == 48

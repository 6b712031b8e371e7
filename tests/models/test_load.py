"""What `dlens.load` takes, what it refuses, and what it leaves alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import dlens
from dlens.models.families.registry import families
from tests.models.conftest import build
from tests.unchecked import unchecked

IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def logits(model: dlens.Model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.module(**model.family.inputs(ids, None)).logits


def test_the_trio_loads_in_float32_with_its_families(
    ar: dlens.Model, diffusion: dlens.Model, ar_init: dlens.Model
) -> None:
    facts = [
        (m.family.name, m.family.objective, m.family.shift, m.family.mask_token_id) for m in (ar, diffusion, ar_init)
    ]
    assert facts == [
        ("autoregressive", "autoregressive", 1, None),
        ("masked", "diffusion", 0, 1),
        ("masked-shifted", "diffusion", 1, 1),
    ]
    for model in (ar, diffusion, ar_init):
        assert (model.n_layers, model.d_model, model.vocab_size, model.n_positions) == (16, 192, 4096, 512)
        assert model.dtype == torch.float32 and model.honours_padding and not model.module.training
        assert (model.eos_token_id, model.pad_token_id) == (0, 0)


def test_the_trio_loads_in_plain_transformers_without_missing_weights(diffusion: dlens.Model) -> None:
    folder = Path(dlens.__file__).parent / "models" / "trio" / "diffusion"
    module, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="float32")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(module(IDS).logits, logits(diffusion))


def test_a_bidirectional_family_has_no_causal_attention_module(diffusion: dlens.Model) -> None:
    assert not diffusion.module.config.is_causal
    assert [part.is_causal for part in diffusion.module.modules() if "is_causal" in vars(part)] == [False] * 16


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "pythia"])
def test_a_causal_checkpoint_loads_as_bidirectional_when_asked(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path)
    family = replace(next(f for f in families() if f.name == "masked"), mask_token_id=99)
    model = dlens.load(tmp_path, family=family)
    assert model.family.mask_token_id == 99 and model.family.objective == "diffusion"


def test_a_module_is_left_as_it_was() -> None:
    module = build("qwen2").train()
    model = dlens.load(module)
    assert model.module is module and module.training and model.tokenizer is None and model.name == "Qwen2ForCausalLM"
    assert all(part.is_causal for part in module.modules() if "is_causal" in vars(part))


def test_a_checkpoint_may_name_its_family(tmp_path: Path) -> None:
    module = build("qwen2", is_causal=False, dlens_family="masked-shifted", mask_token_id=7)
    module.save_pretrained(tmp_path)
    model = dlens.load(tmp_path)
    assert (model.family.name, model.family.shift, model.family.mask_token_id) == ("masked-shifted", 1, 7)


def test_a_bidirectional_config_without_family_is_masked_diffusion() -> None:
    assert dlens.load(build("qwen3", is_causal=False, mask_token_id=7)).family.name == "masked"


def test_nnsight_objects_give_their_module_and_tokenizer(ar: dlens.Model) -> None:
    from nnsight import NNsight, TransformersModel

    module = build("qwen2")
    assert dlens.load(NNsight(module)).module is module
    wrapped = TransformersModel(module, tokenizer=ar.tokenizer)
    model = dlens.load(wrapped)
    assert model.module is module and model.tokenizer is ar.tokenizer


def test_a_model_passes_through(ar: dlens.Model) -> None:
    assert dlens.load(ar) is ar
    other = copy.copy(ar.tokenizer)
    assert dlens.load(ar, tokenizer=other).tokenizer is other
    with pytest.raises(TypeError, match="arguments dtype with a Model"):
        dlens.load(ar, dtype="float32")


def test_verify_false_runs_what_finds_the_layout_alone(llada_folder: Path) -> None:
    module, ran = build("qwen2"), []
    module.register_forward_pre_hook(lambda *_: ran.append(1))
    found = dlens.load(module, verify=False)
    assert found.honours_padding and len(ran) == 1
    assert dlens.load(module, layout=found.layout, verify=False).honours_padding and len(ran) == 1
    # Not probed, and remote code may ignore the mask.
    assert not dlens.load(llada_folder, trust_remote_code=True, verify=False).honours_padding


def test_proofs_that_ask_for_nothing_else_look_at_one_forward() -> None:
    module, runs = build("qwen2"), list[int]()
    module.register_forward_pre_hook(lambda _m, _a: runs.append(1))
    assert dlens.load(module).honours_padding
    # To find the layout; what it says, three texts of which two share values, other tokens; without attention, MLPs,
    # every second block, the others; attention step by step; padding hidden and not.
    assert len(runs) == 11


def test_unknown_family() -> None:
    with pytest.raises(
        ValueError, match="family 'maskd'; expected one of autoregressive, masked, .*; did you mean 'masked'"
    ):
        dlens.load(build("qwen2"), family="maskd")


def test_arguments_with_a_module() -> None:
    with pytest.raises(TypeError, match="arguments dtype with a loaded module; expected .*; set them"):
        dlens.load(build("qwen2"), dtype="float32")


@pytest.mark.parametrize("source", [3, torch.nn.Linear(2, 2)])
def test_what_is_no_model(source: Any) -> None:
    with pytest.raises(TypeError, match="is no model; expected a name"):
        dlens.load(source)


def test_an_encoder_decoder_module_is_refused() -> None:
    config = transformers.T5Config(vocab_size=20, d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8)
    with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder model; expected"):
        dlens.load(transformers.T5ForConditionalGeneration(config))


def test_weights_on_the_meta_device_are_refused() -> None:
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(build("llama").config)
    with pytest.raises(ValueError, match="meta device"):
        dlens.load(module)


@pytest.mark.parametrize("wrong", [{"tokenizer": 5}, {"family": []}, {"family": 3}])
def test_a_tokenizer_or_family_of_another_kind(wrong: dict[str, Any]) -> None:
    with unchecked(), pytest.raises(TypeError, match=f"{next(iter(wrong))}=.*; expected .*; "):
        dlens.load(build("qwen2"), **wrong)

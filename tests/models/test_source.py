"""Checkpoints: where they are, how they are read, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import dlens
from dlens.models.source import TRIO, TRIO_FOLDER, resolve
from tests.models.conftest import build


def test_the_trio_reads_text_by_the_rule_in_its_tokenizer_file(ar: dlens.Model) -> None:
    from tokenizers import Tokenizer

    path = Path(dlens.__file__).parent / "models" / "trio" / "ar" / "tokenizer.json"
    text = "Rose has 1234 stars,it's\n\n  def f(x):\n    return x<|mask|>"
    assert ar.tokenizer(text).input_ids == Tokenizer.from_file(str(path)).encode(text).ids


def test_dtype_passes_through() -> None:
    assert dlens.load("trio/ar", dtype="bfloat16").dtype == torch.bfloat16


def test_device_map_passes_through(ar: dlens.Model) -> None:
    assert torch.equal(logits(dlens.load("trio/ar", device_map="auto")), logits(ar))


def test_attention_implementation_passes_through() -> None:
    assert dlens.load("trio/ar", attn_implementation="eager").module.config._attn_implementation == "eager"


def test_gguf_loads_through_transformers(smol: dlens.Model) -> None:
    assert (smol.n_layers, smol.d_model, smol.family.name) == (30, 576, "autoregressive")
    ids = torch.tensor([smol.tokenizer("The capital of France is").input_ids])
    assert smol.tokenizer.decode(logits(smol, ids)[0, -1].argmax()) == " Paris"


def test_unknown_trio_model() -> None:
    with pytest.raises(
        ValueError, match="no model 'trio/dlm' ships with dlens; expected trio/ar, .*; check the spelling"
    ):
        dlens.load("trio/dlm")


def test_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no config.json; expected a checkpoint .*; give the folder"):
        dlens.load(tmp_path)
    with pytest.raises(ValueError, match="no folder .*; expected .*; check the path"):
        dlens.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="no folder"):
        dlens.load("./absent")


def test_misspelt_argument() -> None:
    with pytest.raises(TypeError, match="unknown argument 'dtpye'; expected .*; did you mean 'dtype'"):
        dlens.load("trio/ar", dtpye="float32")


def test_remote_code_needs_permission(llada_folder: Path) -> None:
    with pytest.raises(
        PermissionError, match="brings its own code .*; expected trust_remote_code=True .*; read the code"
    ):
        dlens.load(llada_folder)


@pytest.mark.parametrize(
    "config",
    [{"model_type": "diffusion_gemma"}, {"model_type": "t5", "is_encoder_decoder": True}],
    ids=["diffusion_gemma", "t5"],
)
def test_encoder_decoders_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is an encoder-decoder .*; expected a decoder-only model"):
        dlens.load(tmp_path)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, the first 'model.layers.1.mlp.up_proj.weight'"):
        dlens.load(tmp_path)


def test_a_folder_without_tokenizer_has_none(tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path)
    model = dlens.load(tmp_path)
    assert model.tokenizer is None and model.name == str(tmp_path)


IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def logits(model: dlens.Model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.module(**model.family.inputs(ids, None)).logits


def test_a_shipped_model_is_a_folder_read_in_float32_unless_another_type_is_asked_for() -> None:
    folder = str(TRIO_FOLDER / "ar-init")
    assert resolve("trio/ar-init", {}) == (folder, {"dtype": torch.float32})
    assert resolve("trio/ar-init", {"dtype": "bfloat16"}) == (folder, {"dtype": "bfloat16"})
    assert sorted(f"trio/{path.name}" for path in TRIO_FOLDER.iterdir() if path.is_dir()) == sorted(TRIO)


def test_what_is_no_folder_is_a_name_on_the_hub() -> None:
    assert resolve("GSAI-ML/LLaDA-8B-Instruct", {}) == ("GSAI-ML/LLaDA-8B-Instruct", {})


def test_a_gguf_file_needs_no_config(tmp_path: Path) -> None:
    assert resolve(tmp_path, {"gguf_file": "model.gguf"}) == (str(tmp_path), {"gguf_file": "model.gguf"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"),
        ("config.json", b'{"model_type": "qwen2", "hidden_size": '),
        ("config.json", b'{"model_type": "qwen2", "hidden_size": "wide"}'),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    build("qwen2").save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read .*; expected what save_pretrained writes; one of"):
        dlens.load(tmp_path)


def test_an_adapted_decoder_is_the_one_of_transformers_without_causality(tmp_path: Path) -> None:
    module = build("qwen3", is_causal=False)
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    module.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    code = {"AutoConfig": "modeling_qwen3.A2DQwen3Config", "AutoModelForMaskedLM": "modeling_qwen3.A2DQwen3LMHeadModel"}
    del config["is_causal"]
    named = {"model_type": "a2d-qwen3", "auto_map": code, "architectures": ["A2DQwen3LMHeadModel"], "mask_token_id": 7}
    path.write_text(json.dumps(config | named))
    # Its own code is not run, so that nobody has to trust it.
    model = dlens.load(tmp_path)
    assert (model.family.name, model.family.mask_token_id, model.family.causal) == ("masked", 7, False)
    ids = torch.tensor([[5, 6, 8, 9]])
    with torch.no_grad():
        assert torch.equal(model.module(ids).logits, module(ids).logits)

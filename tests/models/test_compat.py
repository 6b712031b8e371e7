"""Remote code of LLaDA's and Dream's contracts loads, and computes what the module built directly does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import dlens
from dlens.models import compat
from tests.models.conftest import build
from tests.standins import build_remote, save_dream, save_llada

IDS = torch.tensor([[5, 9, 2, 7, 31, 4, 11]])


def logits(model: dlens.Model) -> torch.Tensor:
    with torch.no_grad():
        return model.module(**model.family.inputs(IDS, None)).logits


@pytest.mark.parametrize("save", [save_llada, save_dream])
def test_a_loaded_checkpoint_equals_the_module_built_directly(save: Any, tmp_path: Path) -> None:
    folder = save(tmp_path)
    with torch.no_grad():
        expected = build_remote(folder)(IDS).logits
    assert torch.equal(logits(dlens.load(folder, trust_remote_code=True)), expected)


def test_a_llada_whose_head_is_its_embedding(tmp_path: Path) -> None:
    folder = save_llada(tmp_path, weight_tying=True)
    model = dlens.load(folder, trust_remote_code=True)
    assert model.layout.head is None
    with torch.no_grad():
        assert torch.equal(logits(model), build_remote(folder)(IDS).logits)


@pytest.mark.parametrize(("save", "symptom"), [(save_llada, AttributeError), (save_dream, KeyError)])
def test_plain_transformers_cannot_load_the_same_code(save: Any, symptom: type, tmp_path: Path) -> None:
    # Another folder name gives classes of its own, which no shim has touched.
    folder = shutil.copytree(save(tmp_path), tmp_path / f"plain_{save.__name__}")
    with pytest.raises(symptom):
        transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)


def test_without_repair_the_rotary_buffers_are_lost(dream_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compat, "repair", lambda module: [part.inv_freq.zero_() for _, part in compat.rope_parts(module)]
    )
    with pytest.raises(dlens.models.proofs.verify.VerificationError, match="inv_freq of .* begins .*; expected"):
        dlens.load(dream_folder, trust_remote_code=True)


def test_the_rotary_rule_stays_with_the_remote_code(dream: dlens.Model) -> None:
    assert dream.module.model.rotary_emb.rope_type == "default"
    assert "default" not in ROPE_INIT_FUNCTIONS
    # GPT-NeoX rotates a quarter of each head by a rule of its own, which a global entry would override.
    assert dlens.load(build("pythia")).module.gpt_neox.rotary_emb.inv_freq.shape == (1,)


def test_tied_keys_in_a_form_that_is_no_longer_read_are_dropped(dream: dlens.Model) -> None:
    assert dream.module._tied_weights_keys is None
    assert dream.module.lm_head.weight is not dream.embed.weight


def test_shims_act_once_and_only_where_needed() -> None:
    class Config(transformers.PretrainedConfig):
        use_cache = True

    class Remote(transformers.PreTrainedModel):
        all_tied_weights_keys = {"a": "b"}
        _tied_weights_keys = {"a": "b"}

        def tie_weights(self, missing_keys: Any = None, recompute_mapping: bool = True) -> str:
            return f"{missing_keys}"

    tie = Remote.tie_weights
    compat.prepare(Remote, Config)
    assert Config.use_cache and Remote._tied_weights_keys == {"a": "b"} and Remote.tie_weights is tie


def test_the_default_rule() -> None:
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, rope_parameters={"rope_theta": 100.0, "rope_type": "default"}
    )
    found, scale = compat.default_rope(config)
    torch.testing.assert_close(found, 100.0 ** -(torch.arange(8) / 8))
    assert scale == 1.0

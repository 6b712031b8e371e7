"""Remote code of public contracts loads, and computes what the module built directly does."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import dlens
from dlens.models import compat
from tests.models.conftest import build
from tests.standins import BLOCKS, build_remote, save_dream, save_llada

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


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_checkpoint_of_block_diffusion_equals_the_module_built_directly(
    kind: str, block_folders: dict[str, Path]
) -> None:
    model = dlens.load(block_folders[kind], trust_remote_code=True)
    with torch.no_grad():
        expected = build_remote(block_folders[kind])(**model.family.inputs(IDS, None)).logits
    assert torch.equal(logits(model), expected)


def test_what_remote_code_imports_is_gone_afterwards() -> None:
    installed = importlib.util.find_spec("flash_attn") is not None
    with compat.importing(), compat.importing():
        from flash_attn.layers.rotary import apply_rotary_emb_qkv_  # pyright: ignore
        from transformers.cache_utils import SlidingWindowCache  # pyright: ignore
        from transformers.utils.import_utils import is_torch_fx_available  # pyright: ignore

        assert callable(apply_rotary_emb_qkv_) and isinstance(SlidingWindowCache, type)
        assert not is_torch_fx_available()
    assert not hasattr(transformers.utils, "LossKwargs")
    assert not hasattr(transformers.utils.import_utils, "is_torch_fx_available")
    assert (importlib.util.find_spec("flash_attn") is not None) == installed
    assert not transformers.utils.is_flash_attn_2_available()


def test_stand_ins_of_flash_attn_compute_what_it_does() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, length, 4, 6, generator=generator) for length in (3, 5, 5))
    with compat.importing():
        import flash_attn  # pyright: ignore
        from flash_attn.bert_padding import pad_input  # pyright: ignore
        from flash_attn.flash_attn_interface import flash_attn_varlen_qkvpacked_func  # pyright: ignore
        from flash_attn.layers.rotary import apply_rotary_emb_qkv_  # pyright: ignore
        from flash_attn.ops.triton.layer_norm import rms_norm_fn  # pyright: ignore

    def attention(b: int, head: int, query: int, keys: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        scores = torch.stack([q[b, query, head] @ k[b, key, head] for key in range(keys)]) / 6**0.5
        return scores.softmax(0) @ v[b, :keys, head]

    full, causal = flash_attn.flash_attn_func(q, k, v), flash_attn.flash_attn_func(q, k, v, causal=True)
    for b, head, query in itertools.product(range(2), range(4), range(3)):
        torch.testing.assert_close(full[b, query, head], attention(b, head, query, 5, q, k, v))
        # The last query is at the last key.
        torch.testing.assert_close(causal[b, query, head], attention(b, head, query, query + 3, q, k, v))
    packed = torch.stack([k, k + 1, v], dim=2)
    rows = flash_attn_varlen_qkvpacked_func(packed.flatten(0, 1), torch.tensor([0, 5, 10]), 5, 0.0, causal=False)
    torch.testing.assert_close(rows.view(2, 5, 4, 6)[1, 2, 3], attention(1, 3, 2, 5, k, k + 1, v))
    angles = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.5, 0.1])
    turned = apply_rotary_emb_qkv_(packed.clone(), angles.cos(), angles.sin())
    pairs = torch.view_as_complex(torch.stack([packed[..., :3], packed[..., 3:]], dim=-1))
    expected = torch.view_as_real(pairs * torch.exp(1j * angles)[:, None, None])
    torch.testing.assert_close(turned[:, :, :2], torch.cat([expected[..., 0], expected[..., 1]], dim=-1)[:, :, :2])
    assert torch.equal(turned[:, :, 2], v)
    weight = torch.arange(1.0, 7.0)
    root = (q.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(rms_norm_fn(q, weight, None, eps=1e-6), (q / root * weight).float())
    with pytest.raises(ImportError, match="flash_attn that dlens has no stand-in for; expected .*; install flash_attn"):
        pad_input()


def test_rotary_settings_that_a_config_took_away() -> None:
    config = SimpleNamespace(rope_parameters=False, rope_theta=500.0)
    compat.settle(config)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500.0}
    compat.settle(native := transformers.LlamaConfig())
    assert native.rope_parameters == transformers.LlamaConfig().rope_parameters


def test_rotary_parts_of_transformers_within_remote_code_are_filled_again() -> None:
    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=4)
    module = torch.nn.Sequential(transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config))
    before = module[0].inv_freq.clone()
    module[0].inv_freq.fill_(7.0)
    compat.repair(module)
    assert torch.equal(module[0].inv_freq, before) and before.shape == (8,)

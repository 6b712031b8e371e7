"""Small random models of every native layout, and the remote stand-ins, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import dlens
from dlens.models.families import registry
from dlens.models.families.adapted import FAST_DLLM, LLADA_MOE, RND1, SDAR
from dlens.models.families.decoder import AUTOREGRESSIVE, MASKED, MASKED_SHIFTED
from dlens.models.families.dit import BD3LM, MDLM
from dlens.models.families.dream import DREAM
from dlens.models.families.llada import LLADA
from dlens.models.families.llada2 import LLADA2
from tests.standins import BLOCKS, save_blocks, save_dream, save_llada

SIZE: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
NEOX = {key: SIZE[key] for key in SIZE if key not in ("num_key_value_heads", "head_dim")}
GPT2: dict[str, Any] = {
    "vocab_size": 100,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.2,
}
ENDS: dict[str, Any] = {"bos_token_id": 98, "eos_token_id": 98}

NATIVE: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: transformers.Qwen2Config(**SIZE),
    "qwen3": lambda: transformers.Qwen3Config(**SIZE),
    "llama": lambda: transformers.LlamaConfig(**SIZE),
    "mistral": lambda: transformers.MistralConfig(**SIZE, sliding_window=4),
    "gemma": lambda: transformers.GemmaConfig(**SIZE),
    "gemma2": lambda: transformers.Gemma2Config(**SIZE, **SLIDING),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZE, **SLIDING),
    "gpt2": lambda: transformers.GPT2Config(**GPT2, **ENDS),
    "pythia": lambda: transformers.GPTNeoXConfig(**NEOX),
    "neox-sequential": lambda: transformers.GPTNeoXConfig(**NEOX, use_parallel_residual=False),
}


def build(name: str, **changes: Any) -> Any:
    """A native model of random weights, the same at every call."""
    config = NATIVE[name]()
    config.update(changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(params=sorted(NATIVE))
def native(request: pytest.FixtureRequest) -> Any:
    """Each native layout in turn, as a module."""
    return build(request.param)


@pytest.fixture(scope="session")
def llada_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaDA-shaped checkpoint."""
    return save_llada(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def dream_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dream-shaped checkpoint."""
    return save_dream(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def llada(llada_folder: Path) -> dlens.Model:
    """A LLaDA-shaped model."""
    return dlens.load(llada_folder, trust_remote_code=True)


@pytest.fixture
def dream(dream_folder: Path) -> dlens.Model:
    """A Dream-shaped model."""
    return dlens.load(dream_folder, trust_remote_code=True)


@pytest.fixture(scope="session")
def block_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family of block diffusion and its kin, by model type."""
    return {kind: save_blocks(tmp_path_factory.mktemp("standin"), kind) for kind in BLOCKS}


@pytest.fixture
def only_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts with the families of dlens alone, and those it registers are gone after it."""
    ours = (AUTOREGRESSIVE, MASKED, MASKED_SHIFTED, LLADA, DREAM, LLADA2, SDAR, FAST_DLLM, LLADA_MOE, RND1, BD3LM, MDLM)
    monkeypatch.setattr(registry, "_FAMILIES", {family.name: family for family in ours})

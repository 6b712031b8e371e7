"""Every operation on native decoders of each architecture, tiny and random."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

import dlens
from dlens.models.families.decoder import llama_like
from tests.reference import left_padded
from tests.tracing.operations import IDS, LLAMA, Names, check_every_operation, like

SIZE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GQA = SIZE | {"num_key_value_heads": 2, "head_dim": 8}
GEMMA = Names("model.layers", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
GPT2 = Names("transformer.h", "attn", "ln_2", "mlp")
NEOX = Names("gpt_neox.layers", "post_attention_dropout", "post_attention_layernorm", "post_mlp_dropout")
CONFIGS: dict[str, tuple[Any, Names]] = {
    "qwen2": (Qwen2Config(**SIZE, num_key_value_heads=2), LLAMA),
    "qwen3": (Qwen3Config(**GQA), LLAMA),
    "llama": (LlamaConfig(**GQA), LLAMA),
    "mistral": (MistralConfig(**GQA, sliding_window=6), LLAMA),
    "gemma": (GemmaConfig(**GQA), LLAMA),
    "gemma2": (Gemma2Config(**GQA, sliding_window=6), GEMMA),
    "gemma3": (
        Gemma3TextConfig(**GQA, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2),
        GEMMA,
    ),
    "gpt2": (GPT2Config(vocab_size=100, n_embd=32, n_layer=4, n_head=4, n_positions=64), GPT2),
    "pythia": (GPTNeoXConfig(**SIZE, use_parallel_residual=False), NEOX),
}


def build(config: Any) -> Any:
    torch.manual_seed(0)
    module = Auto.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        # Large enough for blocks and positions to matter.
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    module.generation_config.eos_token_id = None
    return module


@pytest.mark.parametrize("name", CONFIGS)
def test_every_operation(name: str) -> None:
    config, names = CONFIGS[name]
    module = build(config)
    check_every_operation(dlens.load(module), build(config), names, use_cache=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_decoding_without_layer_0_equals_recomputing(name: str) -> None:
    config, names = CONFIGS[name]
    plain = build(config)
    blocks: Any = plain.get_submodule(names.blocks)
    for layer in (0, 2):
        blocks[layer].register_forward_hook(lambda _m, args, out: like(out, args[0]))
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist(), IDS[1, :2].tolist()]
    ids, mask = left_padded(prompts, 0)
    expected = plain.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=False, pad_token_id=0
    )
    record = dlens.trace(build(config)).skip([0, 2]).generate(prompts, 12, cache="require")
    assert torch.equal(record.tokens[:, -12:], expected[:, -12:])


def test_parallel_blocks_have_no_middle() -> None:
    model = dlens.load(build(GPTNeoXConfig(**SIZE, use_parallel_residual=True)))
    record = dlens.trace(model).capture("resid_pre", "attn_out", "mlp_out", "resid_post").forward(IDS)
    total = record["resid_pre"] + record["attn_out"] + record["mlp_out"]
    assert torch.allclose(total, record["resid_post"], atol=1e-5)
    with pytest.raises(ValueError, match="has no resid_mid"):
        dlens.trace(model).capture("resid_mid")


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_swap_of_unlike_attention_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="layer 0 has sliding_attention and layer 1 full_attention"):
        dlens.trace(build(CONFIGS[name][0])).swap(0, 1)


def test_attention_patterns_are_captured_where_the_model_gives_them() -> None:
    config = CONFIGS["qwen2"][0]
    module = build(config)
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        dlens.trace(module).capture("pattern")
    eager = build(config)
    eager.set_attn_implementation("eager")
    record = dlens.trace(eager).capture("pattern").forward([IDS[0].tolist(), IDS[1, :5].tolist()])
    assert record.dims("pattern") == ("layer", "batch", "head", "position", "position_b")
    with torch.no_grad():
        expected = eager(input_ids=IDS[:1], use_cache=False, output_attentions=True).attentions
    assert torch.allclose(record["pattern"][:, 0], torch.stack(expected)[:, 0], atol=1e-6)
    assert record["pattern"][:, 1, :, 3:].sum(-1).sub(1).abs().max() < 1e-5
    decoded = dlens.trace(eager).capture("blocks.1.attn.hook_pattern").generate(IDS, 4)
    assert decoded["blocks.1.attn.hook_pattern"].shape == (2, 4, 11, 11)
    assert decoded["blocks.1.attn.hook_pattern"].sum(-1).sub(1).abs().max() < 1e-5


def test_patterns_of_a_sliding_cache_lie_on_the_keys_they_belong_to() -> None:
    model = build(CONFIGS["mistral"][0])
    model.set_attn_implementation("eager")
    trace = dlens.trace(model).capture("pattern")
    cached, recomputed = trace.generate(IDS, 5), trace.generate(IDS, 5, cache="off")
    assert torch.equal(cached.tokens, recomputed.tokens)
    assert torch.allclose(cached["pattern"], recomputed["pattern"], atol=1e-5)


def test_training_mode_is_refused() -> None:
    model = dlens.load(build(CONFIGS["gpt2"][0]))
    model.module.train()
    with pytest.raises(ValueError, match="in training mode"):
        dlens.trace(model).forward(IDS)


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_half_a_block_that_a_layout_names_no_modules_of_is_refused(part: Any) -> None:
    module = Auto.from_config(CONFIGS["qwen2"][0]).eval()
    layout = replace(llama_like(), attn_skip=(), mlp_skip=())
    family = dlens.Family(name="own", objective="autoregressive", shift=1, layout=layout)
    trace = dlens.trace(dlens.load(module, family=family))
    with pytest.raises(ValueError, match=f"names no {part}_skip; expected the modules .*; give the family a Layout"):
        trace.skip([1], part=part).forward(IDS)
    assert trace.skip([1]).forward(IDS).saved_flops > 0

"""Every operation on native decoders of each architecture, tiny and random."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
)

import dlens
from tests.reference import left_padded
from tests.whole.architectures import CONFIGS, SIZE, build
from tests.whole.operations import CHECKS, IDS, Pair, like


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each architecture in turn, under dlens and plain."""
    config, names = CONFIGS[request.param]
    return Pair(dlens.load(build(config)), build(config), names, use_cache=False)


@pytest.mark.parametrize("check", CHECKS)
def test_every_operation(pair: Pair, check: str) -> None:
    CHECKS[check](pair)


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


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_patterns_are_captured_with_any_kernel(kernel: str) -> None:
    module, eager = (build(copy.deepcopy(CONFIGS["qwen2"][0])) for _ in range(2))
    module.set_attn_implementation(kernel)
    eager.set_attn_implementation("eager")
    record = dlens.trace(module).capture("pattern").forward([IDS[0].tolist(), IDS[1, :5].tolist()])
    assert record.dims("pattern") == ("layer", "batch", "head", "position", "position_b")
    with torch.no_grad():
        expected = eager(input_ids=IDS[:1], use_cache=False, output_attentions=True).attentions
    assert torch.allclose(record["pattern"][:, 0], torch.stack(expected)[:, 0], atol=1e-6)
    assert record["pattern"][:, 1, :, 3:].sum(-1).sub(1).abs().max() < 1e-5
    decoded = dlens.trace(module).capture("blocks.1.attn.hook_pattern").generate(IDS, 4)
    assert decoded["blocks.1.attn.hook_pattern"].shape == (2, 4, 11, 11)
    assert decoded["blocks.1.attn.hook_pattern"].sum(-1).sub(1).abs().max() < 1e-5


def test_patterns_of_a_sliding_cache_lie_on_the_keys_they_belong_to() -> None:
    trace = dlens.trace(build(CONFIGS["mistral"][0])).capture("pattern")
    cached, recomputed = trace.generate(IDS, 5), trace.generate(IDS, 5, cache="off")
    assert torch.equal(cached.tokens, recomputed.tokens)
    assert torch.allclose(cached["pattern"], recomputed["pattern"], atol=1e-5)

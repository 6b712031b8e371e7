"""Traced runs of a real model (SmolLM2-135M) equal physically changed copies, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import block_outputs, fresh, left_padded, positions, rebuilt

PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a small dog who lived by the sea with",
    "Water boils at a temperature of",
]
NEW = 6
SKIPS = [[0], [3, 4, 5], [0, 1, 17, 29], [29], [2, 9, 16, 23]]


@pytest.fixture(scope="module")
def plain(smol: dlens.Model) -> Any:
    return fresh(smol.module)


def ids_of(model: dlens.Model) -> tuple[Tensor, Tensor]:
    rows = [model.tokenizer(text)["input_ids"] for text in PROMPTS]
    assert len({len(row) for row in rows}) == 3
    return left_padded(rows, model.pad_token_id)


def forward(module: Any, ids: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return module(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits


def greedy(module: Any, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
    arguments = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 2} | more
    return module.generate(input_ids=ids, attention_mask=mask, **arguments)


def assert_same_logits(traced: Tensor, expected: Tensor, mask: Tensor) -> None:
    assert torch.equal(traced[mask.bool()], expected[mask.bool()])


def test_trace_without_operations_is_the_plain_model(smol: dlens.Model, plain: Any) -> None:
    ids, mask = ids_of(smol)
    record = dlens.trace(smol).capture("logits").forward(PROMPTS)
    assert_same_logits(record["logits"], forward(plain, ids, mask), mask)
    single = dlens.trace(smol).capture("logits").forward(PROMPTS[0])
    with torch.no_grad():
        assert torch.equal(single["logits"], plain(ids[:1][mask[:1].bool()][None]).logits)
    assert torch.equal(dlens.trace(smol).generate(PROMPTS, NEW).tokens, greedy(plain, ids, mask))


@pytest.mark.parametrize("layers", SKIPS, ids=str)
def test_skip_is_the_pruned_model(smol: dlens.Model, layers: list[int]) -> None:
    pruned = rebuilt(smol.module, [i for i in range(smol.n_layers) if i not in layers])
    ids, mask = ids_of(smol)
    trace = dlens.trace(smol).skip(layers)
    assert_same_logits(trace.capture("logits").forward(PROMPTS)["logits"], forward(pruned, ids, mask), mask)
    record = trace.generate(PROMPTS, NEW, cache="require")
    assert torch.equal(record.tokens, greedy(pruned, ids, mask))


def test_skip_of_every_block_is_the_model_without_blocks(smol: dlens.Model, plain: Any) -> None:
    ids, mask = ids_of(smol)
    with torch.no_grad():
        expected = plain.lm_head(plain.model.norm(plain.model.embed_tokens(ids)))
    trace = dlens.trace(smol).skip(range(smol.n_layers))
    assert_same_logits(trace.capture("logits").forward(PROMPTS)["logits"], expected, mask)
    tokens = trace.generate(PROMPTS, 3).tokens
    for step in range(3):
        with torch.no_grad():
            last = plain.lm_head(plain.model.norm(plain.model.embed_tokens(tokens[:, ids.shape[-1] + step - 1])))
        assert torch.equal(tokens[:, ids.shape[-1] + step], last.argmax(-1))


def test_swaps_compose_left_to_right(smol: dlens.Model) -> None:
    order = list(range(smol.n_layers))
    for i, j in ((2, 7), (7, 20), (0, 29)):
        order[i], order[j] = order[j], order[i]
    swapped = rebuilt(smol.module, order)
    ids, mask = ids_of(smol)
    trace = dlens.trace(smol).swap(2, 7).swap(7, 20).swap(0, 29)
    assert_same_logits(trace.capture("logits").forward(PROMPTS)["logits"], forward(swapped, ids, mask), mask)
    assert torch.equal(trace.generate(PROMPTS, NEW, cache="require").tokens, greedy(swapped, ids, mask))


def test_swap_with_skip_names_places(smol: dlens.Model) -> None:
    order = list(range(smol.n_layers))
    order[4], order[11] = order[11], order[4]
    del order[4]
    ids, mask = ids_of(smol)
    logits = dlens.trace(smol).skip([4]).swap(4, 11).capture("logits").forward(PROMPTS)["logits"]
    assert_same_logits(logits, forward(rebuilt(smol.module, order), ids, mask), mask)


def test_repeat_is_the_model_with_the_block_doubled(smol: dlens.Model) -> None:
    order = [0, 0, *range(1, 12), 12, 12, 12, *range(13, smol.n_layers)]
    repeated = rebuilt(smol.module, order)
    ids, mask = ids_of(smol)
    trace = dlens.trace(smol).repeat(0).repeat(12, times=3)
    assert_same_logits(trace.capture("logits").forward(PROMPTS)["logits"], forward(repeated, ids, mask), mask)
    record = trace.generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, greedy(repeated, ids, mask, max_new_tokens=NEW, use_cache=False))
    assert "KV cache off" in record.notes[0]


def test_captured_residuals_are_those_of_plain_hooks(smol: dlens.Model, plain: Any) -> None:
    ids, mask = ids_of(smol)
    captured = dlens.trace(smol).capture("resid_post").forward(PROMPTS)
    with block_outputs(plain) as seen:
        forward(plain, ids, mask)
    real = mask.bool()
    for layer, expected in enumerate(seen):
        assert torch.equal(captured["resid_post"][layer][real], expected[real])
    assert captured["resid_post"][:, ~real].abs().max() == 0


def test_captured_residuals_of_decoding_are_those_of_plain_hooks(smol: dlens.Model, plain: Any) -> None:
    ids, mask = ids_of(smol)
    record = dlens.trace(smol).capture("resid_post", layers=[0, 13, -1]).generate(PROMPTS, 8)
    with block_outputs(plain) as seen:
        greedy(plain, ids, mask, max_new_tokens=8)
    assert record.dims("resid_post") == ("layer", "batch", "position", "d_model")
    assert record["resid_post"].shape[2] == ids.shape[-1] + 8 - 1
    for number, layer in enumerate((0, 13, 29)):
        expected = torch.cat(seen[layer :: smol.n_layers], dim=1)
        kept = ~record.is_pad[:, : expected.shape[1]]
        assert torch.equal(record["resid_post"][number][kept], expected[kept])
    assert record.step_of_position is not None
    assert record.step_of_position.tolist() == [0] * ids.shape[-1] + list(range(1, 8))


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_half_a_block_skipped_is_that_half_zeroed(smol: dlens.Model, plain: Any, part: str) -> None:
    ids, mask = ids_of(smol)
    name = {"attn": "self_attn", "mlp": "mlp"}[part]

    def zero(_module: Any, _args: Any, out: Any) -> Any:
        return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)

    hooks = [getattr(plain.model.layers[i], name).register_forward_hook(zero) for i in (0, 5, 6)]
    expected, tokens = forward(plain, ids, mask), greedy(plain, ids, mask, max_new_tokens=NEW)
    for hook in hooks:
        hook.remove()
    trace = dlens.trace(smol).skip([0, 5, 6], part=part)
    assert_same_logits(trace.capture("logits").forward(PROMPTS)["logits"], expected, mask)
    assert torch.equal(trace.generate(PROMPTS, NEW, cache="require").tokens, tokens)


def test_sampling_is_that_of_generate_with_the_same_seed(smol: dlens.Model, plain: Any) -> None:
    ids, mask = ids_of(smol)
    torch.manual_seed(7)
    expected = greedy(plain, ids, mask, do_sample=True, temperature=0.8, top_p=0.9, top_k=None, max_new_tokens=16)
    sampler = dlens.samplers.Autoregressive(temperature=0.8, top_p=0.9)
    before = torch.get_rng_state()
    record = dlens.trace(smol).capture("resid_post", layers=[3]).generate(PROMPTS, 16, sampler=sampler, seed=7)
    assert torch.equal(record.tokens, expected)
    assert torch.equal(torch.get_rng_state(), before)

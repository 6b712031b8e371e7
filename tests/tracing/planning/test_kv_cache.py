"""Which operations keep the KV cache, and what the one with skipped layers holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens import trace
from dlens.tracing.planning.kv_cache import fullest_cache
from tests.models.conftest import build
from tests.reference import edited
from tests.refusing import STORY, Action, refused
from tests.tracing.plain import DECODED, PROMPTS, greedy
from tests.unchecked import unchecked

IDS = torch.arange(3, 9)[None]  # longer than the window of the small models, which is 4


def test_skip_at_some_steps_recomputes_every_position(ar: dlens.Model, plain_ar: Any) -> None:
    def edit(step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        return hidden if layer in (0, 6) and 3 <= step < 7 else None

    with edited(plain_ar, edit):
        expected = greedy(ar, plain_ar, use_cache=False)
    record = dlens.trace(ar).skip([0, 6], steps=slice(3, 7)).generate(PROMPTS, DECODED)
    assert torch.equal(record.tokens, expected)
    assert len(record.notes) == 1 and "KV cache off" in record.notes[0]
    with pytest.raises(ValueError, match="cache='require'"):
        dlens.trace(ar).skip([0, 6], steps=slice(3, 7)).generate(PROMPTS, DECODED, cache="require")


def test_mlp_skip_and_steering_at_some_steps_keep_the_cache(ar: dlens.Model, plain_ar: Any) -> None:
    vector = torch.randn(ar.d_model, generator=torch.Generator().manual_seed(0))
    state = {"step": -1}

    def edit(step: int, layer: int, _hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        state["step"] = step
        return out + 2.0 * vector if layer == 4 and step in (0, 5) else None

    def mlp(_module: Any, _args: Any, out: Tensor) -> Tensor | None:
        return torch.zeros_like(out) if state["step"] in (2, 3) else None

    handle = plain_ar.model.layers[9].mlp.register_forward_hook(mlp)
    with edited(plain_ar, edit):
        expected = greedy(ar, plain_ar)
    handle.remove()
    trace = dlens.trace(ar).skip([9], part="mlp", steps=[2, 3]).steer(vector, layers=4, scale=2.0, steps=[0, 5])
    record = trace.generate(PROMPTS, DECODED, cache="require")
    assert torch.equal(record.tokens, expected)
    assert record.notes == ()


@pytest.mark.parametrize("part", ["block", "attn"])
def test_swap_at_some_steps_of_a_skipped_place_switches_the_cache_off(
    ar: dlens.Model, plain_ar: Any, part: Any
) -> None:
    trace = dlens.trace(ar).skip([2], part=part).swap(2, 7, steps=slice(1, None))
    record = trace.generate(PROMPTS, DECODED)
    assert "KV cache off" in record.notes[0]
    assert torch.equal(record.tokens, trace.generate(PROMPTS, DECODED, cache="off").tokens)
    with pytest.raises(ValueError, match="cache='require'"):
        trace.swap(7, 9).generate(PROMPTS, DECODED, cache="require")
    kept = dlens.trace(ar).skip([2], part=part).swap(3, 7, steps=slice(1, None)).swap(2, 9)
    assert kept.generate(PROMPTS, DECODED, cache="require").notes == ()


REFUSED: dict[str, tuple[str, Action]] = {
    "a cache that repeats break": (
        "cache='require'",
        lambda m: trace(m).ablate_outlier().repeat(3).generate(STORY, 8, cache="require"),
    ),
    "a cache that some steps break": (
        "cache='require'",
        lambda m: trace(m).skip(3, steps=[1]).generate(STORY, 8, cache="require"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_cache_that_cannot_be_kept(ar: dlens.Model, case: str) -> None:
    came, action = REFUSED[case]
    ar.memo.clear()
    with unchecked(), refused(ar, ValueError, came):
        action(ar)


def test_a_run_that_may_keep_its_cache_says_nothing(ar: dlens.Model) -> None:
    chain = trace(ar).skip([0]).swap(2, 7, steps=[1]).ablate([5], [3])
    assert chain.generate(STORY, 3, cache="require").notes == ()
    assert trace(ar).skip([0], steps=[1]).generate(STORY, 3, cache="off").notes == ()


def test_where_every_layer_is_skipped_nothing_is_cached(ar: dlens.Model) -> None:
    record = trace(ar).skip(range(16)).generate(STORY, 2)
    assert "KV cache off because of 'every layer is skipped, so that nothing would be cached'" in record.notes[0]


def test_the_length_of_a_cache_is_that_of_its_fullest_layer(ar: dlens.Model) -> None:
    cache = fullest_cache(ar.config)
    assert cache.get_seq_length() == 0
    keys = torch.zeros(1, 2, 5, 8)
    for layer in (1, 3):
        # A block that asks for itself is told of itself, whatever those before it have written.
        assert cache.get_seq_length(layer) == 0 and cache.get_mask_sizes(5, layer) == (5, 0)
        cache.update(keys, keys, layer)
    assert cache.get_seq_length() == 5 == cache.get_seq_length(0)
    assert cache.layers[0].get_seq_length() == 0
    assert cache.get_mask_sizes(1, 0) == (6, 0) == cache.get_mask_sizes(1, 1)


@pytest.mark.parametrize(("name", "kernel"), [("gemma2", "eager"), ("gemma3", "eager"), ("gemma3", "sdpa")])
def test_a_cache_of_sliding_and_full_layers_past_the_window(name: str, kernel: str) -> None:
    module = build(name)
    module.set_attn_implementation(kernel)
    for skipped in ([1], [2, 3], [0]):
        chain = trace(module).skip(skipped).capture("logits")
        kept, again = (chain.generate(IDS, 8, cache=cache, progress=False) for cache in ("require", "off"))
        assert torch.equal(kept.tokens, again.tokens)
        torch.testing.assert_close(kept["logits"], again["logits"], atol=2e-5, rtol=0)

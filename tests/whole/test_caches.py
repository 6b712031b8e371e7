"""Caches of denoising against runs by hand, with every operation, on native and remote code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config

import dlens
from dlens import caches
from dlens.samplers import Denoiser, LLaDA, Threshold
from tests.reference import edited, fresh
from tests.whole.architectures import SIZE, build
from tests.whole.caches import Rule, Run, cached_run, delayed, dual, prefix

MASK = 99
PROMPTS = [[5, 17, 3, 40, 8], [9, 2, 77]]
NEW = 12
RULES: dict[str, tuple[caches.Cache, Rule]] = {
    "prefix": (caches.Prefix(), prefix),
    "dual": (caches.Dual(), dual),
    "delayed": (caches.Delayed(4), delayed(4)),
}
SAMPLER = LLaDA(block_length=4)


@pytest.fixture(scope="module", params=["masked", "masked-shifted"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def small(family: str) -> dlens.Model:
    """A tiny native decoder in float64, so that no tie is decided by how a sum was ordered."""
    module = build(Qwen2Config(**SIZE, num_key_value_heads=2, is_causal=False)).double()
    return dlens.load(module, family=family, mask_token_id=MASK)


@pytest.fixture(scope="module")
def plain(small: dlens.Model) -> Any:
    return fresh(small.module).double()


def by_hand(model: dlens.Model, plain: Any, rule: Rule, sampler: Denoiser = SAMPLER, **more: Any) -> Run:
    return cached_run(plain, sampler, rule, PROMPTS, NEW, MASK, model.family.shift, **more)


def same(record: dlens.Record, run: Run) -> None:
    """Tokens, and logits where they were computed; NaN where not."""
    assert torch.equal(record.tokens[~record.is_pad], run.tokens[~record.is_pad])
    assert record.computed is not None
    real = ~record.is_pad
    computed = torch.stack(run.computed) & real
    assert torch.equal(record.computed, computed)
    got, expected = record["logits"], torch.stack(run.logits)
    torch.testing.assert_close(got[computed], expected[computed], rtol=0, atol=1e-9)
    assert bool(got[~computed & real].isnan().all())


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sampler", [SAMPLER, Threshold(0.05, block_length=4)], ids=["LLaDA", "Threshold"])
def test_a_cached_run_equals_one_by_hand(small: dlens.Model, plain: Any, name: str, sampler: Denoiser) -> None:
    cache, rule = RULES[name]
    record = dlens.trace(small).capture("logits").generate(PROMPTS, NEW, sampler=sampler, cache=cache)
    same(record, by_hand(small, plain, rule, sampler))
    assert record.settings["cache"] == repr(cache)


def test_guidance_caches_both_halves(small: dlens.Model, plain: Any) -> None:
    sampler = LLaDA(block_length=4, guidance=1.5)
    record = dlens.trace(small).capture("logits").generate(PROMPTS, NEW, sampler=sampler, cache=caches.Dual())
    same(record, by_hand(small, plain, dual, sampler))


def test_a_row_of_a_batch_equals_itself_alone(small: dlens.Model) -> None:
    for cache, _ in RULES.values():
        trace = dlens.trace(small)
        both = trace.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
        for row, prompt in enumerate(PROMPTS):
            alone = trace.generate([prompt], NEW, sampler=SAMPLER, cache=cache)
            assert torch.equal(both.tokens[row, -NEW:], alone.tokens[0, -NEW:])


Edit = Callable[[int, int, Tensor, Tensor, Tensor], Tensor | None]
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def masks(ids: Tensor) -> Tensor:
    return (ids == MASK)[..., None]


# What a chain of operations does to the output of a block, written out.
OPERATIONS: dict[str, tuple[Callable[[dlens.Trace], dlens.Trace], Edit]] = {
    "skip": (lambda t: t.skip([0, 2]), lambda s, layer, h, o, i: h if layer in (0, 2) else None),
    "steer masks": (
        lambda t: t.steer(VECTOR, layers=1, tokens="masked"),
        lambda s, layer, h, o, i: torch.where(masks(i), o + VECTOR, o) if layer == 1 else None,
    ),
    "steer decoded at some steps": (
        lambda t: t.steer(VECTOR, layers=1, tokens="decoded", steps=range(2, 9)),
        lambda s, layer, h, o, i: (
            torch.where(~masks(i) & (torch.arange(i.shape[1]) >= 5)[:, None], o + VECTOR, o)
            if layer == 1 and 2 <= s < 9
            else None
        ),
    ),
    "ablate": (
        lambda t: t.ablate(2, [3, 7]),
        lambda s, layer, h, o, i: o.index_fill(-1, torch.tensor([3, 7]), 0) if layer == 2 else None,
    ),
    "noise": (
        lambda t: t.steer(VECTOR, layers=3, noise=(0.2, 0.6)),
        lambda s, layer, h, o, i: (
            torch.where(((masks(i).sum(1) > 0.2 * NEW) & (masks(i).sum(1) <= 0.6 * NEW))[:, None], o + VECTOR, o)
            if layer == 3
            else None
        ),
    ),
    "last": (
        lambda t: t.steer(VECTOR, layers=1, tokens="last"),
        lambda s, layer, h, o, i: (
            torch.where((torch.arange(i.shape[1]) == i.shape[1] - 1)[:, None], o + VECTOR, o) if layer == 1 else None
        ),
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", RULES)
def test_operations_under_a_cache_equal_hooks(small: dlens.Model, plain: Any, name: str, operation: str) -> None:
    (cache, rule), (chain, edit) = RULES[name], OPERATIONS[operation]
    with edited(plain, edit):
        expected = by_hand(small, plain, rule)
    same(chain(dlens.trace(small).capture("logits")).generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache), expected)


@pytest.mark.parametrize("name", RULES)
def test_halves_and_places_under_a_cache_equal_hooks(small: dlens.Model, plain: Any, name: str) -> None:
    cache, rule = RULES[name]
    layers = plain.model.layers

    def nothing(_part: Any, _args: Any, out: Any) -> Any:
        return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)

    handles = [layers[1].mlp.register_forward_hook(nothing), layers[3].self_attn.register_forward_hook(nothing)]
    order = [layers[i] for i in (2, 1, 0, 3)]
    kept = list(layers)
    layers[:] = order
    expected = by_hand(small, plain, rule)
    layers[:] = kept
    for handle in handles:
        handle.remove()
    trace = dlens.trace(small).skip([1], part="mlp").skip([3], part="attn").swap(0, 2).capture("logits")
    same(trace.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache), expected)


REFUSED: dict[str, tuple[Callable[[dlens.Trace], dlens.Trace], str]] = {
    "skip at some steps": (lambda t: t.skip([1], steps=range(4)), "leaves no keys"),
    "skip at some noise": (lambda t: t.skip([1], noise=(0.0, 0.5)), "leaves no keys"),
    "attention at some steps": (lambda t: t.skip([1], part="attn", steps="early"), "leaves no keys"),
    "repeat": (lambda t: t.repeat(1, 2), "writes its keys and values twice"),
    "rotated keys": (lambda t: t.capture("rot_k"), "take k instead"),
    "gradient": (
        lambda t: t.gradient("resid_post", of=dlens.metrics.masked_loss([3])),
        "a gradient goes through all positions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused_before_anything_is_computed(small: dlens.Model, case: str) -> None:
    chain, message = REFUSED[case]
    calls: list[Any] = []
    handle = small.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=f"cache=Dual with .*{message}.*leave cache= out"):
        chain(dlens.trace(small)).generate(PROMPTS, NEW, cache=caches.Dual())
    handle.remove()
    assert not calls

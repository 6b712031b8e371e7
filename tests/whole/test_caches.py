"""Caches of denoising against runs by hand, with every operation, on native and remote code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config

import dlens
from dlens import caches
from dlens.models.families.decoder import MASKED, MASKED_SHIFTED
from dlens.samplers import BlockDiffusion, Denoiser, LLaDA, Threshold, Tokens
from tests.reference import edited, fresh
from tests.standins import build_remote, save_dream, save_llada
from tests.whole.adaptive import ByHand
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


@pytest.fixture(scope="module", params=[MASKED, MASKED_SHIFTED], ids=["as they are", "shifted"])
def family(request: pytest.FixtureRequest) -> dlens.Family:
    return replace(request.param, mask_token_id=MASK)


@pytest.fixture(scope="module")
def small(family: dlens.Family) -> dlens.Model:
    """A tiny native decoder in float64, so that no tie is decided by how a sum was ordered."""
    module = build(Qwen2Config(**SIZE, num_key_value_heads=2, is_causal=False)).double()
    return dlens.load(module, family=family)


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


@final
@dataclass(frozen=True)
class NamesNone(Denoiser):
    """A sampler of before, that reads all columns."""

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return max_new_tokens

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        def whole(canvas: Tensor, unconditional: Any = None, columns: Any = None) -> Tensor:
            logits = forward(canvas)
            assert logits.shape[:2] == canvas.shape
            return logits[:, columns]

        return LLaDA(block_length=NEW).decode(whole, canvas, generated, new_tokens, tokens, draw)


def test_a_sampler_that_names_no_columns_has_the_logits_of_all(small: dlens.Model) -> None:
    trace = dlens.trace(small)
    for cache in (caches.Delayed(4), caches.Dual()):
        unnamed = trace.generate(PROMPTS, NEW, sampler=NamesNone(), cache=cache)
        if isinstance(cache, caches.Delayed):
            named = trace.generate(PROMPTS, NEW, sampler=LLaDA(block_length=NEW), cache=cache)
            assert torch.equal(unnamed.tokens, named.tokens)
        else:
            assert unnamed.computed is not None and bool((unnamed.computed | unnamed.is_pad).all())


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
    layers[0], layers[2] = layers[2], layers[0]
    expected = by_hand(small, plain, rule)
    layers[0], layers[2] = layers[2], layers[0]
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
        lambda t: t.gradient("resid_post", of=dlens.metrics.log_prob([3])),
        "a gradient goes through all positions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused_before_anything_is_computed(
    small: dlens.Model, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, message = REFUSED[case]
    monkeypatch.setattr("dlens.tracing.denoising_run.DenoisingRun.drive", lambda run: pytest.fail("it computes"))
    with pytest.raises(ValueError, match=f"cache=Dual with .*{message}.*leave cache= out"):
        chain(dlens.trace(small)).generate(PROMPTS, NEW, cache=caches.Dual())


def test_adaptive_equals_its_blocks_written_out(plain: Any, small: dlens.Model) -> None:
    prompts, settings = [[5, 17, 3, 40, 8], [9, 2, 77, 31, 6]], (6, 3, 0.4)
    rows = [ByHand(plain, 5, *settings) for _ in prompts]
    seen: list[Tensor] = []

    def forward(canvas: Tensor, unconditional: Any, columns: Tensor) -> Tensor:
        logits = torch.stack([row.logits(ids) for row, ids in zip(rows, canvas, strict=True)])
        seen.append(logits)
        shift = small.family.shift
        return logits[:, columns - shift]

    canvas = torch.tensor([[*prompt, *[MASK] * NEW] for prompt in prompts])
    with torch.no_grad():
        expected = SAMPLER.decode(forward, canvas, canvas == MASK, NEW, Tokens(MASK), torch.rand)  # type: ignore
    trace = dlens.trace(small).capture("logits")
    record = trace.generate(prompts, NEW, sampler=SAMPLER, cache=caches.Adaptive(*settings))
    torch.testing.assert_close(record["logits"], torch.stack(seen), rtol=0, atol=1e-9)
    assert torch.equal(record.tokens, expected)
    with pytest.raises(ValueError, match="cache=Adaptive with 'capture attn_out.*each half has columns of its own"):
        trace.capture("attn_out").generate(prompts, NEW, cache=caches.Adaptive())


@pytest.fixture(scope="module", params=["llada", "dream"])
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dlens.Model, Any]:
    """Code of checkpoints that has no cache, and a plain module of the same weights."""
    folder = {"llada": save_llada, "dream": save_dream}[request.param](tmp_path_factory.mktemp("remote"))
    return dlens.load(folder, trust_remote_code=True, dtype="float64"), build_remote(folder).double()


@pytest.mark.parametrize("name", RULES)
def test_code_of_checkpoints_equals_a_run_by_hand(remote: tuple[dlens.Model, Any], name: str) -> None:
    (model, plain), (cache, rule) = remote, RULES[name]
    assert model.honours_padding

    def inputs(ids: Tensor, mask: Tensor) -> dict[str, Any]:
        return {key: value for key, value in model.family.inputs(ids, mask.bool()).items() if key != "input_ids"}

    record = dlens.trace(model).capture("logits").generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    same(record, cached_run(plain, SAMPLER, rule, PROMPTS, NEW, MASK, model.family.shift, inputs=inputs))


def test_halves_that_compute_all_columns_change_nothing(remote: tuple[dlens.Model, Any]) -> None:
    trace = dlens.trace(remote[0]).capture("logits")
    cache = caches.Adaptive(prompt_every=1, response_every=100, share=1)
    record = trace.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    plain = trace.generate(PROMPTS, NEW, sampler=SAMPLER)
    torch.testing.assert_close(record["logits"], plain["logits"], rtol=0, atol=1e-9)
    some = trace.generate(PROMPTS, NEW, sampler=SAMPLER, cache=caches.Adaptive(share=0.5))
    assert not torch.equal(some["logits"], plain["logits"])


@pytest.fixture(scope="module")
def causal() -> dlens.Model:
    """A tiny decoder whose attention is causal between canvas blocks of 4."""
    module = build(Qwen2Config(**SIZE, num_key_value_heads=2, is_causal=False))
    family = dlens.Family("in-blocks", "diffusion", 0, mask_token_id=MASK, block_length=4)
    return dlens.load(module, family=family)


LENGTHS = (5, 8, 11, 13, 16, 19)
IN_BLOCKS = BlockDiffusion(block_length=4)


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, 90, (length,), generator=generator).tolist() for length in lengths]


def patched(trace: dlens.Trace) -> dlens.Trace:
    """With what another run, which computed all, has at the masks."""
    other = dlens.trace(trace.model).skip([0]).capture("resid_post", layers=[1])
    record = other.generate(prompts_of(5, 8), 8, sampler=IN_BLOCKS, cache="off")
    return trace.patch(record, layers=1, tokens="masked")


CHAINS: dict[str, Callable[[dlens.Trace], dlens.Trace]] = {
    "plain": lambda t: t,
    "skip": lambda t: t.skip([0, 2]),
    "halves": lambda t: t.skip([1], part="mlp").skip([2], part="attn"),
    "swap": lambda t: t.swap(1, 3),
    "ablate": lambda t: t.ablate(2, [3, 7]),
    "steer": lambda t: t.steer(VECTOR.float(), layers=1, tokens="masked"),
    "patch": patched,
    "measure": lambda t: t.measure(dlens.Cosine(), dlens.CKA(), dlens.Norms()),
    "heads": lambda t: t.ablate(2, at="z", heads=[1]),
    "knockout": lambda t: t.knockout(1, source="prompt", target="masked", heads=[0, 2]),
}


def both_ways(trace: dlens.Trace, sampler: Denoiser) -> Iterator[tuple[Tensor, Tensor]]:
    """What a run with the exact cache computed, and one without it, of prompts that end within a block."""
    cached = trace.generate(prompts_of(5, 8), 8, sampler=sampler)
    plain = trace.generate(prompts_of(5, 8), 8, sampler=sampler, cache="off")
    assert torch.equal(cached.tokens, plain.tokens)
    assert cached.computed is not None and plain.computed is None
    assert cached.computed.sum() < 0.8 * (~plain.is_pad).sum() * plain.n_steps
    for point in ("resid_post", "logits"):
        shown = cached.computed if point == "logits" else cached.computed[:, None].expand(-1, 4, -1, -1)
        yield cached[point][shown], plain[point][shown]


@pytest.mark.parametrize("chain", CHAINS)
def test_the_exact_cache_has_the_numbers_of_a_run_without_it(causal: dlens.Model, chain: str) -> None:
    for cached, plain in both_ways(CHAINS[chain](dlens.trace(causal).capture("resid_post", "logits")), IN_BLOCKS):
        assert torch.equal(cached, plain)


def test_where_a_block_is_cut_off_the_exact_cache_rounds(causal: dlens.Model) -> None:
    """LLaDA's sampler fills no last block: products of one column are summed in another order."""
    for cached, plain in both_ways(dlens.trace(causal).capture("resid_post", "logits"), LLaDA(block_length=4)):
        torch.testing.assert_close(cached, plain, rtol=0, atol=1e-5)


def test_two_unequal_prompts_equal_each_alone(causal: dlens.Model) -> None:
    trace, sampler = dlens.trace(causal), IN_BLOCKS
    for lengths in zip(LENGTHS[::2], LENGTHS[1::2], strict=True):
        both = trace.generate(prompts_of(*lengths), 6, sampler=sampler)
        for row, prompt in enumerate(prompts_of(*lengths)):
            assert torch.equal(both.tokens[row, -6:], trace.generate([prompt], 6, sampler=sampler).tokens[0, -6:])


def test_where_an_operation_forbids_it_the_exact_cache_is_off(causal: dlens.Model) -> None:
    trace = dlens.trace(causal).skip([1], steps=range(2))
    record = trace.generate(PROMPTS, 8)
    assert record.computed is None and "cache off because of 'skip layers 1 at steps 0:2'" in record.notes[0]
    with pytest.raises(ValueError, match="cache=Blocks with 'skip layers 1.*leaves no keys and values"):
        trace.generate(PROMPTS, 8, cache="require")
    assert torch.equal(record.tokens, trace.generate(PROMPTS, 8, cache="off").tokens)


def test_flops_count_what_each_step_computes(small: dlens.Model) -> None:
    """2 a multiplication: every matrix by the columns computed, queries by all keys, and weights by all values."""
    record = dlens.trace(small).generate(PROMPTS, NEW, sampler=SAMPLER, cache=caches.Dual())
    d, inner, kv, vocab, layers, width = 32, 48, 16, 100, 4, 5 + NEW
    matrices = layers * (2 * d * d + 2 * d * kv + 3 * d * inner) + d * vocab
    block = 4 + small.family.shift
    rows, expected = len(PROMPTS), 0
    for step in range(NEW):
        columns = width if step % 4 == 0 else block
        expected += rows * columns * (2 * matrices + layers * 4 * width * d)
    assert record.flops == expected and record.saved_flops == 0
    skipped = dlens.trace(small).skip([1]).generate(PROMPTS, NEW, sampler=SAMPLER, cache=caches.Dual())
    assert skipped.saved_flops == expected - skipped.flops > 0


MEASURES = [
    dlens.Cosine(), dlens.CKA(), dlens.Recency(), dlens.Outliers(), dlens.Drift(), dlens.Norms(), dlens.Attention(),
    dlens.SinkValues(), dlens.CommitOrder(), dlens.EffectiveRank(),
]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_measures_count_what_was_computed(small: dlens.Model, name: str) -> None:
    """Values at the columns computed are those that a capture has, and no others count."""
    cache, _ = RULES[name]
    trace = dlens.trace(small).capture("resid_pre", "resid_post").measure(*MEASURES)
    record = trace.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    assert record.computed is not None and record.canvas is not None
    pre, post = record["resid_pre"], record["resid_post"]
    cosine = torch.cosine_similarity(pre, post, dim=-1)
    counted = record.computed & ~record.is_pad
    data = record.measures["cosine"]
    n = torch.tensor(data["n"].values).sum((1, 2))[:, 0]
    assert torch.equal(n, counted.sum((1, 2)))
    total = (data["cosine"] * data["n"]).sum(("noise", "state")).values
    expected = torch.where(counted[:, None], cosine, 0).sum((2, 3))
    torch.testing.assert_close(torch.tensor(total), expected, rtol=1e-5, atol=1e-5)
    drift = record.measures["drift"]
    both = counted[1:] & counted[:-1]
    assert torch.tensor(drift["n"].values).sum((1, 2))[1:, 0].tolist() == both.sum((1, 2)).tolist()
    moved = torch.cosine_similarity(post[1:], post[:-1], dim=-1)
    total = (drift["cosine"] * drift["n"]).sum(("noise", "state")).values[1:]
    expected = torch.where(both[:, None], moved, 0).sum((2, 3))
    torch.testing.assert_close(torch.tensor(total), expected, rtol=1e-5, atol=1e-5)
    order = record.measures["commit_order"]["committed_at"].values
    new = record.committed_at[:, -NEW:]
    assert order[:, -NEW:].tolist() == new.tolist()


def test_patterns_and_knockouts_have_the_keys_of_earlier_steps(small: dlens.Model) -> None:
    cache = caches.Dual()
    trace = dlens.trace(small)
    record = trace.capture("pattern", "attn_scores", layers=[1]).generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    assert record.computed is not None
    for step in range(NEW):
        for row in range(2):
            shown = record.computed[step, row] & ~record.is_pad[row]
            own = record["pattern"][step, 0, row]
            torch.testing.assert_close(own[:, shown].sum(-1), torch.ones(4, int(shown.sum())).double())
            assert bool(own[:, ~record.computed[step, row] & ~record.is_pad[row]].isnan().all())
            scores = record["attn_scores"][step, 0, row][:, shown]
            torch.testing.assert_close(own[:, shown], scores.softmax(-1))
    cut = trace.knockout(1, source="prompt", target="masked").capture("pattern", layers=[1])
    after = cut.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    assert after.computed is not None and after.canvas is not None
    masked = (after.canvas == MASK) & after.computed
    for step in range(NEW):
        for row in range(2):
            own = after["pattern"][step, 0, row][:, masked[step, row]]
            assert bool((own[..., :5] == 0).all()) and bool((own.sum(-1) > 0.99).all())


def test_a_patch_from_a_cached_run_gives_what_it_computed(small: dlens.Model) -> None:
    trace, cache = dlens.trace(small), caches.Dual()
    other = trace.skip([0]).capture("resid_post", layers=[2]).generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    patched = trace.patch(other, layers=2).capture("resid_post", layers=[2])
    again = patched.generate(PROMPTS, NEW, sampler=SAMPLER, cache=cache)
    assert torch.equal(again.tokens, other.tokens)
    torch.testing.assert_close(again["resid_post"], other["resid_post"], rtol=0, atol=0, equal_nan=True)
    whole = patched.generate(PROMPTS, NEW, sampler=SAMPLER)
    assert other.computed is not None
    shown = other.computed[:, None]
    same = torch.where(shown[..., None], whole["resid_post"] == other["resid_post"], True)
    assert bool(same.all()) and not bool(whole["resid_post"].isnan().any())


def test_what_a_cached_run_computed_is_saved(small: dlens.Model, tmp_path: Path) -> None:
    record = dlens.trace(small).capture("resid_post").generate(PROMPTS, NEW, sampler=SAMPLER, cache=caches.Prefix())
    record.save(tmp_path)
    read = dlens.load_record(tmp_path)
    assert read.computed is not None and record.computed is not None and torch.equal(read.computed, record.computed)
    assert read.settings["cache"] == "Prefix()" and read.flops == record.flops

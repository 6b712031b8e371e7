"""Traced denoising runs equal plain ones with changed modules or hand-written hooks, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.samplers import Dream, LLaDA, Threshold
from tests.reference import block_outputs, edited, fresh, rebuilt
from tests.tracing.denoising import NEW, PROMPTS, plain_run


@pytest.fixture(scope="module", params=["diffusion", "ar_init"])
def model(request: pytest.FixtureRequest) -> dlens.Model:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def plain(model: dlens.Model) -> Any:
    return fresh(model.module)


def swap(order: list[int], i: int, j: int) -> list[int]:
    order = list(order)
    order[i], order[j] = order[j], order[i]
    return order


SAMPLERS = [
    LLaDA(steps=6, block_length=6),
    LLaDA(temperature=0.7, remasking="random"),
    LLaDA(guidance=1.0, steps=6),
    Dream(steps=5, algorithm="entropy"),
    Dream(steps=6, algorithm="origin"),
    Dream(algorithm="maskgit_plus", temperature=0.5, top_p=0.9, alg_temp=0.3),
    Threshold(threshold=0.6, block_length=6),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_run_without_operations_is_the_plain_run(model: dlens.Model, plain: Any, sampler: Any) -> None:
    expected = plain_run(model, plain, sampler, seed=3)
    for trace in (dlens.trace(model), dlens.trace(model).capture("resid_post", layers=[2])):
        record = trace.generate(PROMPTS, NEW, sampler=sampler, seed=3)
        assert torch.equal(record.tokens, expected.tokens)
        assert record.canvas is not None
        assert torch.equal(record.canvas, torch.stack(expected.canvases))


@pytest.mark.parametrize("layers", [[0], [3, 4, 5], [15], [1, 6, 11, 14]], ids=str)
def test_skip_is_the_pruned_model(model: dlens.Model, layers: list[int]) -> None:
    pruned = rebuilt(model.module, [i for i in range(model.n_layers) if i not in layers])
    expected = plain_run(model, pruned)
    record = dlens.trace(model).skip(layers).capture("logits").generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)
    real = ~record.is_pad
    assert torch.equal(record["logits"][:, real], torch.stack(expected.logits)[:, real])


def test_swap_and_repeat_are_the_rebuilt_model(model: dlens.Model) -> None:
    order = swap(swap(list(range(model.n_layers)), 2, 7), 7, 0)
    order = order[:5] + [order[4]] + order[5:]
    expected = plain_run(model, rebuilt(model.module, order))
    record = dlens.trace(model).swap(2, 7).repeat(4).swap(7, 0).generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)


def test_captures_are_those_of_plain_hooks(model: dlens.Model, plain: Any) -> None:
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW)
    with block_outputs(plain) as seen:
        expected = plain_run(model, plain)
    real = ~record.is_pad
    assert record.dims("resid_post") == ("step", "layer", "batch", "position", "d_model")
    values = torch.stack(seen).unflatten(0, (NEW, model.n_layers))
    assert torch.equal(record["resid_post"][:, :, real], values[:, :, real])
    assert torch.equal(record["logits"][:, real], torch.stack(expected.logits)[:, real])
    assert record["resid_post"][:, :, ~real].abs().max() == 0


def test_guidance_captures_the_conditional_half_of_one_step(model: dlens.Model, plain: Any) -> None:
    sampler = LLaDA(guidance=1.5, steps=4)
    record = dlens.trace(model).skip([3]).capture("logits").generate(PROMPTS, NEW, sampler=sampler)
    expected = plain_run(model, rebuilt(model.module, [i for i in range(16) if i != 3]), sampler)
    real = ~record.is_pad
    assert record.n_steps == len(expected.logits) == 4
    assert torch.equal(record["logits"][:, real], torch.stack(expected.logits)[:, real])


def masked_at(ids: Tensor, model: dlens.Model) -> Tensor:
    return ids == model.family.mask_token_id


def noise_of(ids: Tensor, model: dlens.Model) -> Tensor:
    return masked_at(ids, model).sum(-1) / NEW


def test_steps_scope_equals_hooks(model: dlens.Model, plain: Any) -> None:
    trace = dlens.trace(model).skip([3, 4], steps=range(2, 6)).skip([9], steps="late").swap(1, 12, steps=[0, 7])

    def edit(step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        if layer in (3, 4) and 2 <= step < 6:
            return hidden
        if layer == 9 and step >= 8:
            return hidden
        return None

    layers = plain.model.layers
    one, twelve = layers[1], layers[12]

    def order(_module: Any, _args: Any, kwargs: Any) -> None:
        swapped = int(masked_at(kwargs["input_ids"], model).sum()) in (NEW * 3, (NEW - 7) * 3)
        layers[1], layers[12] = (twelve, one) if swapped else (one, twelve)

    handle = plain.register_forward_pre_hook(order, with_kwargs=True)
    with edited(plain, edit):
        expected = plain_run(model, plain)
    handle.remove()
    layers[1], layers[12] = one, twelve
    assert torch.equal(trace.generate(PROMPTS, NEW).tokens, expected.tokens)


@pytest.mark.parametrize("noise", [(0.5, 1.0), (0.0, 0.5), (0.25, 0.75)])
def test_noise_scope_equals_hooks(model: dlens.Model, plain: Any, noise: tuple[float, float]) -> None:
    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, ids: Tensor) -> Tensor | None:
        inside = (noise_of(ids, model) > noise[0]) & (noise_of(ids, model) <= noise[1])
        return torch.where(inside[:, None, None], hidden, out) if layer in (3, 8) else None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    record = dlens.trace(model).skip([3, 8], noise=noise).generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)


def test_rows_of_unlike_noise_keep_their_own_value(model: dlens.Model, plain: Any) -> None:
    mask = model.family.mask_token_id
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [5, mask, mask, mask, 9, mask], [mask] * 6])

    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        if layer == 2:
            return torch.stack([hidden[0], out[1], out[2]])
        if layer == 5:
            return torch.stack([out[0], out[1], again(5, out)[2]])
        if layer in (9, 11):
            return torch.stack([out[0], other(9 + 11 - layer, hidden)[1], out[2]])
        return None

    parts: dict[str, Any] = {}
    plain.model.rotary_emb.register_forward_hook(lambda _m, _a, out: parts.__setitem__("rotary", out))
    again = other = lambda layer, value: fresh_layers[layer](value, position_embeddings=parts["rotary"])
    fresh_layers = fresh(model.module).model.layers
    with edited(plain, edit), torch.no_grad():
        expected = plain(input_ids=ids, use_cache=False).logits
    trace = (
        dlens.trace(model)
        .skip([2], noise=(0.0, 0.1))
        .repeat(5, noise=(0.9, 1.0))
        .swap(9, 11, noise=(0.5, 0.8))
        .capture("logits")
    )
    assert torch.equal(trace.forward(ids)["logits"], expected)


@pytest.mark.parametrize("tokens", ["masked", "prompt", "decoded", "last", slice(1, 4), [0, 2, -1]], ids=str)
def test_tokens_scope_equals_hooks(model: dlens.Model, plain: Any, tokens: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(model.d_model, generator=generator)
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in PROMPTS]
    width = max(lengths)

    def chosen(ids: Tensor) -> Tensor:
        column = torch.arange(width + NEW).repeat(3, 1)
        first = torch.tensor([width - length for length in lengths])[:, None]
        masks = masked_at(ids, model)
        table = {
            "masked": masks,
            "prompt": (column >= first) & (column < width),
            "decoded": (column >= width) & ~masks,
            "last": column == width + NEW - 1,
        }
        if isinstance(tokens, str):
            return table[tokens]
        if isinstance(tokens, slice):
            return (column - first >= tokens.start) & (column - first < tokens.stop)
        return (column == first) | (column == first + 2) | (column == width + NEW - 1)

    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, ids: Tensor) -> Tensor | None:
        if layer == 8:
            return torch.where(chosen(ids)[..., None], out + 4.0 * vector, out)
        if layer == 11:
            ablated = out.clone()
            ablated[..., [3, 7]] = 0
            return torch.where(chosen(ids)[..., None], ablated, out)
        return None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    trace = dlens.trace(model).ablate([11], [3, 7], tokens=tokens).steer(vector, layers=8, scale=4.0, tokens=tokens)
    record = trace.generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected.tokens)


def test_bool_tokens_equal_hooks(model: dlens.Model, plain: Any) -> None:
    width = max(len(model.tokenizer(text)["input_ids"]) for text in PROMPTS) + NEW
    where = torch.rand(3, width, generator=torch.Generator().manual_seed(5)) < 0.4

    def edit(_step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        return torch.where(where[..., None], torch.zeros_like(out), out) if layer == 6 else None

    with edited(plain, edit):
        expected = plain_run(model, plain)
    assert torch.equal(dlens.trace(model).ablate(6, tokens=where).generate(PROMPTS, NEW).tokens, expected.tokens)


@pytest.mark.parametrize("at", ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"])
def test_patch_from_its_own_record_changes_nothing(model: dlens.Model, at: str) -> None:
    record = dlens.trace(model).capture(at, "logits").generate(PROMPTS, NEW)
    again = dlens.trace(model).patch(record, at=at).capture("logits").generate(PROMPTS, NEW)
    assert torch.equal(again.tokens, record.tokens)
    assert torch.equal(again["logits"], record["logits"])


def test_patch_from_a_run_that_ended_before_its_plan_changes_nothing(model: dlens.Model) -> None:
    sampler = Threshold(threshold=0.3)
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW, sampler=sampler)
    assert record.n_steps < record.planned_steps
    patched = dlens.trace(model).patch(record)
    again = patched.capture("logits").generate(PROMPTS, NEW, sampler=sampler)
    assert torch.equal(again["logits"], record["logits"])
    assert dlens.trace(model).patch(record, layers=[3]).generate(PROMPTS, NEW).n_steps == NEW


def test_patch_of_one_layer_reproduces_the_other_run(model: dlens.Model) -> None:
    others = ["Lily had a cat", "The little boy went to a shop and bought the", "Question: Tom has 93 pens."]
    widths = [[len(model.tokenizer(t)["input_ids"]) for t in texts] for texts in (PROMPTS, others)]
    assert widths[0] == widths[1]
    source = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW)
    patched = dlens.trace(model).patch(source, layers=9).capture("logits").generate(others, NEW)
    new = slice(-NEW, None)
    assert torch.equal(patched["logits"], source["logits"])
    assert torch.equal(patched.tokens[:, new], source.tokens[:, new])
    assert not torch.equal(dlens.trace(model).generate(others, NEW).tokens[:, new], source.tokens[:, new])


def test_patch_under_guidance_from_its_own_record_changes_nothing(model: dlens.Model) -> None:
    sampler = LLaDA(guidance=1.0, steps=4)
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW, sampler=sampler)
    again = dlens.trace(model).patch(record, layers=[4]).capture("logits").generate(PROMPTS, NEW, sampler=sampler)
    assert torch.equal(again["logits"], record["logits"])


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_half_skips_equal_hooks(model: dlens.Model, plain: Any, part: str) -> None:
    name = {"attn": "self_attn", "mlp": "mlp"}[part]

    def zero(_module: Any, _args: Any, out: Any) -> Any:
        return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)

    hooks = [getattr(plain.model.layers[i], name).register_forward_hook(zero) for i in (2, 10)]
    expected = plain_run(model, plain)
    for hook in hooks:
        hook.remove()
    assert torch.equal(dlens.trace(model).skip([2, 10], part=part).generate(PROMPTS, NEW).tokens, expected.tokens)


def test_writing_the_middle_changes_what_the_mlp_reads_and_is_added_to(model: dlens.Model, plain: Any) -> None:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2))
    layer = plain.model.layers[6]

    def attention(_module: Any, _args: Any, out: Any) -> Any:
        return (out[0] + vector, *out[1:])

    handle = layer.self_attn.register_forward_hook(attention)
    moved = plain_run(model, plain)
    handle.remove()
    record = dlens.trace(model).steer(vector, layers=6, at="resid_mid").generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, moved.tokens)


def test_committed_at_and_states(model: dlens.Model) -> None:
    record = dlens.trace(model).generate(PROMPTS, NEW)
    assert record.canvas is not None
    final = torch.cat([record.canvas[1:], record.tokens[None]])
    for row in range(3):
        for column in range(record.tokens.shape[1]):
            changes = (final[:, row, column] != record.canvas[:, row, column]).nonzero().flatten().tolist()
            assert record.committed_at[row, column] == (changes[-1] if changes else -1)
    assert (record.committed_at[:, :-NEW] == -1).all()

"""One place at one step equals a rebuilt model or plain hooks, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens import trace
from tests.reference import edited, fresh, rebuilt
from tests.refusing import STORY, assert_three_parts
from tests.tracing.plain import NEW, PROMPTS, plain_run
from tests.untouched import untouched


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


def swap(order: list[int], i: int, j: int) -> list[int]:
    order = list(order)
    order[i], order[j] = order[j], order[i]
    return order


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


def test_a_hook_that_writes_the_pattern(diffusion: dlens.Model) -> None:
    chain = trace(diffusion).capture("z", layers=3).capture("logits")
    written = chain.hook("blocks.3.attn.hook_pattern", lambda value, hook: value * 0).forward(STORY)
    assert written["z"].abs().max() == 0
    without = trace(diffusion).ablate(3, at="attn_out").capture("logits").forward(STORY)
    assert torch.equal(written["logits"], without["logits"])  # the output projection has no bias
    with pytest.raises(ValueError) as caught:
        trace(diffusion).hook("pattern", lambda value, hook: value[..., :1]).forward(STORY)
    assert_three_parts(str(caught.value), "pattern")
    read = chain.hook("pattern", lambda value, hook: None).forward(STORY)
    plain = trace(diffusion).capture("logits").forward(STORY)
    assert torch.allclose(read["logits"], plain["logits"], atol=1e-4)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
@pytest.mark.parametrize("point", ["embed", "blocks.2.hook_attn_out", "blocks.2.hook_resid_post", "logits"])
def test_a_hook_that_returns_a_wrong_shape(name: str, point: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).swap(4, 5).hook(point, lambda value, hook: value[..., 1:])
    for run in (chain.forward, lambda ids: chain.generate(ids, 2)):
        with untouched(model), pytest.raises(ValueError) as caught:
            run(STORY)
        assert_three_parts(str(caught.value), f"hook_{point.split('hook_')[-1]} returned shape (1, ")

"""Scores against forwards and backward passes written by hand in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlens
from dlens.metrics import MetricStep
from tests.findings.circuits.conftest import CLEAN, CORRUPTED
from tests.whole.architectures import CONFIGS, build

RIGHT, WRONG = [8, 9], [11, 12]
METRIC = dlens.metrics.logit_difference(RIGHT, WRONG)


@contextmanager
def changed(part: nn.Module, hook: Any, pre: bool = False) -> Iterator[None]:
    """A hook of PyTorch for as long as the body runs."""
    handle = part.register_forward_pre_hook(hook) if pre else part.register_forward_hook(hook)
    yield
    handle.remove()


def by_hand(module: Any, ids: Any = CLEAN) -> Tensor:
    """The metric of a plain forward, pair by pair."""
    with torch.no_grad():
        logits = module(input_ids=torch.tensor(ids), use_cache=False).logits[:, -1]
    return torch.stack([logits[row, RIGHT[row]] - logits[row, WRONG[row]] for row in range(len(logits))])


def seen(module: Any, part: nn.Module, ids: Any = CORRUPTED, pre: bool = False) -> Tensor:
    """What a part of a run has, the corrupted one by default: its output, or its input."""
    held: list[Tensor] = []
    keep = (lambda _m, args: held.append(args[0])) if pre else (lambda _m, _args, out: held.append(out))
    with changed(part, keep, pre):
        by_hand(module, ids)
    return held[0]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_patching_positions_is_a_loop_by_hand(module: Any, model: dlens.Model, batch_size: int) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, batch_size=batch_size)
    clean, expected = by_hand(module), np.zeros((2, 4, 6))
    for layer, block in enumerate(module.model.layers):
        other = seen(module, block)
        for position in range(6):

            def exchange(_m: Any, _a: Any, out: Tensor, at: int = position, other: Tensor = other) -> Tensor:
                out = out.clone()
                out[:, at] = other[:, at]
                return out

            with changed(block, exchange):
                expected[:, layer, position] = (by_hand(module) - clean).numpy()
    np.testing.assert_allclose(found.by_pair.values, expected, atol=2e-6)
    assert abs(expected).max() > 0.1 and found.clean == pytest.approx(float(clean.mean()), abs=1e-6)
    assert found.corrupted == pytest.approx(float(by_hand(module, CORRUPTED).mean()), abs=1e-6)
    # Before the texts differ nothing can be exchanged, and the clean run stays as it is.
    assert (found.by_pair.values[0, :, :2] == 0).all() and (found.by_pair.values[1, :, :3] == 0).all()


def test_patching_heads_is_a_loop_by_hand(module: Any, model: dlens.Model) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="z")
    clean, expected = by_hand(module), np.zeros((2, 4, 4))
    for layer, block in enumerate(module.model.layers):
        other = seen(module, block.self_attn.o_proj, pre=True)
        for head in range(4):
            own = slice(8 * head, 8 * head + 8)

            def exchange(_m: Any, args: Any, own: slice = own, other: Tensor = other) -> Any:
                z = args[0].clone()
                z[..., own] = other[..., own]
                return (z,)

            with changed(block.self_attn.o_proj, exchange, pre=True):
                expected[:, layer, head] = (by_hand(module) - clean).numpy()
    np.testing.assert_allclose(found.by_pair.values, expected, atol=2e-6)
    assert abs(expected).max() > 0.01


def singly(model: dlens.Model, at: str, layer: int, **cell: Any) -> Tensor:
    """The metric of the clean run with one cell patched by the verb, less that of the clean run."""
    trace = dlens.trace(model).capture("logits")
    other = trace.capture(at).forward(CORRUPTED)
    logits = [chain.forward(CLEAN)["logits"][:, -1] for chain in (trace.patch(other, layer, at=at, **cell), trace)]
    patched, clean = (own[[0, 1], RIGHT] - own[[0, 1], WRONG] for own in logits)
    return patched.double() - clean.double()


@pytest.mark.parametrize(
    ("at", "axis"),
    [("resid_mid", "position"), ("mlp_out", "position"), ("result", "head"), ("q", "head"), ("v", "kv_head")],
)
def test_patching_is_a_loop_of_patches_to_the_bit(model: dlens.Model, at: str, axis: str) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at=at, layers=[1])
    for place in range(found.scores.sizes[axis]):
        cell = {"tokens": [place]} if axis == "position" else {"heads": [place]}
        assert found.by_pair.values[:, 0, place].tolist() == singly(model, at, 1, **cell).tolist()


def test_patterns_are_patched_within_rounding(model: dlens.Model) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="pattern", layers=[1, 2])
    assert found.scores.dims == ("layer", "head")
    for head in range(4):
        np.testing.assert_allclose(
            found.by_pair.values[:, 1, head], singly(model, "pattern", 2, heads=[head]), atol=1e-5
        )


def test_neurons_are_patched_one_by_one(model: dlens.Model) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="mlp_post", layers=[2])
    other = dlens.trace(model).capture("mlp_post").forward(CORRUPTED)["mlp_post"][2]
    clean = dlens.trace(model).capture("logits").forward(CLEAN)["logits"][:, -1]

    def exchange(value: Tensor, hook: Any) -> Tensor:
        value[..., 7] = other[..., 7]
        return value

    logits = dlens.trace(model).hook("blocks.2.mlp.hook_post", exchange).capture("logits").forward(CLEAN)["logits"]
    expected = [
        (
            logits[row, -1, RIGHT[row]] - logits[row, -1, WRONG[row]] - clean[row, RIGHT[row]] + clean[row, WRONG[row]]
        ).item()
        for row in range(2)
    ]
    np.testing.assert_allclose(found.by_pair.sel(layer=2, neuron=7).values, expected, atol=1e-6)


def embedded(module: Any, ids: Any) -> Tensor:
    return module.model.embed_tokens(torch.tensor(ids)).detach()


def slopes(module: Any, inputs: Tensor) -> list[Tensor]:
    """d metric / d output of every block, at given embeddings."""
    held: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: (held.append(out), out.retain_grad())[0])
        for block in module.model.layers
    ]
    logits = module(inputs_embeds=inputs.clone().requires_grad_(), use_cache=False).logits[:, -1]
    sum(logits[row, RIGHT[row]] - logits[row, WRONG[row]] for row in range(2)).backward()
    for handle in handles:
        handle.remove()
    module.zero_grad()
    return [value.grad for value in held if value.grad is not None]


@pytest.mark.parametrize(("method", "steps"), [("attribution", 1), ("integrated", 4)])
def test_first_order_scores_are_those_of_autograd(module: Any, model: dlens.Model, method: str, steps: int) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, method=method, steps=4)
    x, other = embedded(module, CLEAN), embedded(module, CORRUPTED)
    total = torch.zeros(4, 2, 6, 32)
    for step in range(1, steps + 1):
        total += torch.stack(slopes(module, other + step / steps * (x - other))) / steps
    for layer, block in enumerate(module.model.layers):
        moved = seen(module, block) - seen(module, block, CLEAN)
        expected = (moved * total[layer]).sum(-1)
        np.testing.assert_allclose(found.by_pair.values[:, layer], expected, atol=1e-5)
    assert abs(found.by_pair.values).max() > 0.1


def test_one_mixture_is_the_clean_text(model: dlens.Model) -> None:
    one, plain = (
        dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="z", method=method, steps=1)
        for method in ("integrated", "attribution")
    )
    assert (one.by_pair.values == plain.by_pair.values).all()


def test_integrated_gradients_are_complete_at_the_embedding(model: dlens.Model) -> None:
    whole = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="embed", method="integrated", steps=20)
    moved = whole.data["corrupted"] - whole.data["clean"]
    few = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="embed", method="attribution")
    np.testing.assert_allclose(whole.by_pair.sum("position"), moved, atol=0.006)
    assert abs(few.by_pair.sum("position") - moved).min() > 0.06
    assert whole.scores.dims == ("position",) and (whole.by_pair.values[0, [0, 1, 3, 4, 5]] == 0).all()


def test_first_order_is_exact_where_all_that_follows_is_linear() -> None:
    module = build(copy.deepcopy(CONFIGS["qwen2"][0]))
    module.model.norm = nn.Identity()
    linear = dlens.load(module)
    exact, first = (
        dlens.attribute(linear, CLEAN, CORRUPTED, METRIC, at="mlp_out", method=method, layers=[3])
        for method in ("patching", "attribution")
    )
    np.testing.assert_allclose(first.by_pair.values, exact.by_pair.values, atol=1e-4)
    assert abs(exact.by_pair.values[:, 0, -1]).max() > 0.1


def test_metrics_of_diffusion_models_get_aligned_logits_and_masks(masked: dlens.Model) -> None:
    told: list[MetricStep] = []

    def metric(logits: Tensor, step: MetricStep) -> Tensor:
        told.append(step)
        return logits[:, -1, 8]

    rows = [[3, 1, 15, 9, 26, 1]], [[3, 1, 31, 9, 26, 1]]
    by_gradient = dlens.attribute(masked, *rows, metric, method="attribution")
    by_run = dlens.attribute(masked, *rows, metric, layers=[3])
    assert by_gradient.clean == by_run.clean and by_gradient.corrupted == by_run.corrupted
    assert all(step.noise is not None and step.noise[0] == 2 / 6 and step.masked[0].sum() == 2 for step in told)
    assert {len(step.tokens) for step in told} == {1}


def test_a_metric_gives_one_number_a_pair(model: dlens.Model) -> None:
    with pytest.raises(ValueError, match=r"the metric gave shape \(\); expected \[2\], one number a row"):
        dlens.attribute(model, CLEAN, CORRUPTED, lambda logits, step: logits.sum())

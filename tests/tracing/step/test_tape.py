"""The graph of a step: where it begins, what it leaves as it was, and that it ends with the step."""

from __future__ import annotations

import copy
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import plan_run
from dlens.tracing.step.tape import cut, metric_of
from tests.whole.architectures import CONFIGS, build
from tests.whole.operations import IDS

TARGET = Target("tiny", n_layers=4, d_model=3, has_noise=False)


def metric(logits: Tensor, step: Any) -> Tensor:
    return logits[:, -1, 3] - logits[:, -1, 4]


def constant(logits: Tensor, step: Any) -> Tensor:
    return logits.new_ones(len(logits))


@pytest.fixture
def model() -> dlens.Model:
    return dlens.load(build(copy.deepcopy(CONFIGS["qwen2"][0])), verify=False)


def test_the_metric_of_a_run_is_one(model: dlens.Model) -> None:
    trace = dlens.trace(model).gradient("z", of=metric).gradient("q", of=metric, layers=1)

    def found(trace: dlens.Trace) -> Any:
        return metric_of(plan_run(trace.ops, TARGET, 1, torch.ones(1, 2, dtype=torch.bool)))

    assert found(trace) is metric and found(dlens.trace(model).capture("z")) is None
    with pytest.raises(ValueError, match="gradients of two metrics; expected one, as a step has one backward pass"):
        found(trace.gradient("k", of=constant))


def test_the_graph_begins_at_the_lowest_value_asked_for(model: dlens.Model) -> None:
    graphs: dict[str, bool] = {}

    def look(value: Tensor, hook: Any) -> None:
        graphs[hook.name] = value.requires_grad

    seen = dlens.trace(model).gradient("mlp_out", of=metric, layers=[1, 3])
    handles = [
        block.register_forward_hook(lambda part, args, out, at=at: graphs.update({str(at): out.requires_grad}))
        for at, block in enumerate(model.blocks)
    ]
    seen.forward(IDS)
    for handle in handles:
        handle.remove()
    assert graphs == {"0": False, "1": True, "2": True, "3": True}


def test_a_metric_that_no_value_moves_has_gradients_of_zero(model: dlens.Model) -> None:
    record = dlens.trace(model).gradient("z", of=constant).forward(IDS)
    assert record.gradients["z"].abs().max() == 0 and record.metric.tolist() == [1, 1]
    late = dlens.trace(model).gradient("resid_post", "embed", of=lambda logits, step: logits[:, 0].sum(-1))
    gradients = late.forward(IDS).gradients
    assert gradients["embed"][:, 1:].abs().max() == 0 and gradients["embed"][:, 0].abs().min() > 0
    assert gradients["resid_post"][:, :, 1:].abs().max() == 0


def test_rows_do_not_share_their_gradients(model: dlens.Model) -> None:
    trace = dlens.trace(model).gradient("resid_pre", of=metric)
    both = trace.forward(IDS)
    for row in range(2):
        alone = trace.forward(IDS[row : row + 1])
        assert torch.allclose(both.metric[row], alone.metric[0], atol=1e-5)
        expected = alone.gradients["resid_pre"][:, 0]
        assert torch.allclose(both.gradients["resid_pre"][:, row], expected, atol=1e-5)


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_and_weights_are_put_back(model: dlens.Model, enabled: bool) -> None:
    some = next(model.module.parameters())
    some.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.module.parameters()]
    modes: list[bool] = []

    def broken(logits: Tensor, step: Any) -> Tensor:
        modes.append(torch.is_grad_enabled())
        raise RuntimeError("broken")

    with torch.set_grad_enabled(enabled):
        for of in (metric, broken):
            trace = dlens.trace(model).gradient("z", of=of)
            if of is broken:
                with pytest.raises(RuntimeError, match="broken"):
                    trace.forward(IDS)
            else:
                trace.generate(IDS, 2)
            assert torch.is_grad_enabled() is enabled
            assert [parameter.requires_grad for parameter in model.module.parameters()] == before
    assert modes == [True] and not model.module._forward_hooks and not model.module._forward_pre_hooks


def test_an_error_within_the_forward_puts_them_back_too(model: dlens.Model) -> None:
    def broken(value: Tensor, hook: Any) -> None:
        raise KeyError("mine")

    with torch.no_grad():
        with pytest.raises(KeyError, match="mine"):
            dlens.trace(model).gradient("z", of=metric).hook("blocks.2.hook_resid_post", broken).forward(IDS)
        assert not torch.is_grad_enabled()
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_hooks_may_compute_with_gradients_of_their_own(model: dlens.Model) -> None:
    found: list[Tensor] = []

    def slope(value: Tensor, hook: Any) -> None:
        with torch.enable_grad():
            leaf = value.detach().clone().requires_grad_()
            found.append(torch.autograd.grad(leaf.square().sum(), leaf)[0] / 2 - leaf)

    trace = dlens.trace(model).gradient("z", of=metric, layers=1)
    plain = trace.forward(IDS).gradients["z"]
    assert torch.equal(trace.hook("blocks.2.hook_resid_post", slope).forward(IDS).gradients["z"], plain)
    assert found[0].abs().max() == 0


class Marker:
    """Lives as long as the node of the graph that it hangs on: nodes themselves take no weak reference."""

    def __call__(self, *gradients: Any) -> None:
        return None


def test_nothing_of_the_graph_outlives_its_step(model: dlens.Model) -> None:
    logits: list[Any] = []
    left: list[bool] = []

    def noted(found: Tensor, step: Any) -> Tensor:
        marker = Marker()
        logits.append(weakref.ref(marker))
        found.grad_fn.register_hook(marker)  # pyright: ignore
        return metric(found, step)

    def entered(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if "past_key_values" not in kwargs:  # the forward that finds how wide each point is
            return
        layers = kwargs["past_key_values"].layers
        cached = [kept for layer in layers if (kept := vars(layer).get("keys")) is not None]
        left.append(any(kept.requires_grad for kept in cached) or any(graph() is not None for graph in logits))

    handle = model.module.register_forward_pre_hook(entered, with_kwargs=True)
    record = dlens.trace(model).gradient("z", of=noted).capture("resid_post").generate(IDS, 4, cache="require")
    handle.remove()
    assert left == [False] * 4 and len(logits) == 4 and logits[-1]() is None
    assert not record["resid_post"].requires_grad and not record.metric.requires_grad


def test_an_output_is_cut_from_the_graph_with_its_cache() -> None:
    grown = torch.ones(2, requires_grad=True) * 2
    layers = [SimpleNamespace(keys=grown, values=grown * 3), SimpleNamespace(keys=None)]
    output = SimpleNamespace(logits=grown + 1, past_key_values=SimpleNamespace(layers=layers))
    assert cut(output) is output and not output.logits.requires_grad and output.logits.tolist() == [3, 3]
    assert not layers[0].keys.requires_grad and layers[0].values.tolist() == [6, 6] and layers[1].keys is None
    assert not cut(SimpleNamespace(logits=grown)).logits.requires_grad

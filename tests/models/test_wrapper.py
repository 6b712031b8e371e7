"""nnsight's wrapper around a module: shared, followed, removed."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import dlens
from dlens.models.wrapper import resting, wrapper_of
from tests.models.conftest import build
from tests.models.families.reading import IDS
from tests.models.wrapped import clean, marks, traced
from tests.refusing import assert_three_parts


def test_the_wrapper_is_built_once_for_each_module() -> None:
    module = build("qwen2")
    one, two = dlens.load(module), dlens.load(module)
    assert not marks(module)
    assert one.nnsight is one.nnsight is two.nnsight
    assert not torch.equal(traced(one), clean(one))


def test_unwrap_leaves_nothing_and_the_next_trace_works() -> None:
    model = dlens.load(build("qwen2"))
    before, expected = clean(model), traced(model)
    model.unwrap()
    assert not marks(model.module) and torch.equal(clean(model), before)
    assert torch.equal(traced(model), expected)


def test_unwrap_restores_a_forward_that_stood_there() -> None:
    module = build("qwen2")
    calls: list[int] = []
    original = module.model.layers[0].mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(x)

    module.model.layers[0].mlp.forward = forward
    model = dlens.load(module, verify=False)
    calls.clear()
    traced(model)
    assert len(calls) == 1
    model.unwrap()
    assert vars(module.model.layers[0].mlp)["forward"] is forward and marks(module) == ["forward"]


def test_unwrap_restores_accelerate_hooks() -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module
    from nnsight import NNsight

    class Count(ModelHook):
        calls = 0

        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            Count.calls += 1
            return args, kwargs

    for wrapped_before in (False, True):
        module = build("qwen2")
        add_hook_to_module(module.model.layers[0], Count())
        model = dlens.load(NNsight(module) if wrapped_before else module, verify=False)
        traced(model)
        model.unwrap()
        Count.calls = 0
        clean(model)
        assert Count.calls == 1 and marks(module) == ["forward"]


def test_a_copy_of_a_wrapped_module_and_of_an_nnsight_object_can_be_traced() -> None:
    model = dlens.load(build("qwen2"))
    expected = traced(model)
    assert torch.equal(traced(dlens.load(copy.deepcopy(model.module))), expected)
    assert torch.equal(traced(dlens.load(copy.deepcopy(model.nnsight))), expected)


def test_a_users_own_wrapper_keeps_working() -> None:
    import nnsight

    module = build("qwen2")
    own: Any = nnsight.NNsight(module)
    model = dlens.load(own)
    expected = traced(model)
    with torch.no_grad(), own.trace(IDS):
        own.model.layers[1].skip(own.model.layers[1].input)
        logits = nnsight.save(own.lm_head.output)
    assert torch.equal(logits, expected)


def test_the_wrapper_follows_blocks_that_were_exchanged() -> None:
    model = dlens.load(build("qwen2"))
    traced(model)
    layers = list(model.module.model.layers)
    model.module.model.layers = nn.ModuleList([layers[i] for i in (0, 2, 1, 3)])
    kept = list(model.module.model.layers)
    found = traced(model)
    model.unwrap()
    model.module.model.layers = nn.ModuleList([kept[0], kept[2], kept[3]])
    model.module.config.num_hidden_layers = 3
    assert torch.equal(found, clean(model))


def test_a_wrapped_model_is_freed() -> None:
    model = dlens.load(build("qwen2"))
    traced(model)
    gone = weakref.ref(model.module)
    del model
    gc.collect()
    assert gone() is None


def test_parts_that_rest_lose_nnsights_forward_for_as_long_as_a_run() -> None:
    model = dlens.load(build("qwen2"))
    with resting(model.module, ()):  # not wrapped yet: nothing to take off
        assert marks(model.module) == []
    wrapper = wrapper_of(model.module)
    layers = model.module.model.layers
    before = {part: vars(part)["forward"] for part in model.module.modules()}
    with pytest.raises(KeyError), resting(model.module, {layers[1]}):
        assert vars(layers[1])["forward"] is before[layers[1]] and "forward" not in vars(layers[0])
        raise KeyError
    assert {part: vars(part)["forward"] for part in model.module.modules()} == before
    assert wrapper.serves(model.module)


@pytest.mark.parametrize("verbs", ["hook", "hook and swap", "on_step alone", "on_step and skip"])
def test_a_run_that_is_going_on_keeps_its_wrapper(verbs: str) -> None:
    model = dlens.load(build("qwen2"))
    before = clean(model)
    said: list[str] = []

    def leave(*_: Any) -> None:
        for change in (model.unwrap, lambda: dlens.load(model.module, verify=False)):
            with pytest.raises(RuntimeError) as caught:
                change()
            said.append(str(caught.value))

    trace = dlens.trace(model)
    if verbs.startswith("hook"):
        chain = trace.swap(0, 1) if "swap" in verbs else trace
        chain.hook("blocks.1.hook_resid_post", leave).forward(IDS)
    else:
        chain = trace.skip(1) if "skip" in verbs else trace
        chain.generate(IDS, 1, on_step=leave, progress=False)
    assert len(said) == 2
    for message in said:
        assert_three_parts(message, "is going on")
    model.unwrap()
    assert not marks(model.module) and torch.equal(clean(model), before)

"""Facts of a model, and nnsight's wrapper around it: shared, copied, removed."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import dlens
from tests.models.conftest import build

IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def clean(model: dlens.Model) -> torch.Tensor:
    with torch.no_grad():
        return model.module(**model.family.inputs(IDS, None)).logits


def traced(model: dlens.Model) -> torch.Tensor:
    """Logits with block 1 skipped through nnsight itself."""
    import nnsight

    root: Any = model.nnsight
    with torch.no_grad(), root.trace(**model.family.inputs(IDS, None)):
        root.model.layers[1].skip(root.model.layers[1].input)
        logits = nnsight.save(root.lm_head.output)
    return logits


def marks(module: nn.Module) -> list[str]:
    return [name for part in module.modules() for name in ("forward", "__nnsight__") if name in vars(part)]


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


def test_a_copied_model_acts_on_its_copy() -> None:
    model = dlens.load(build("qwen2"))
    expected = traced(model)
    twin = copy.deepcopy(model)
    assert twin.module is not model.module and twin.nnsight is not model.nnsight
    assert torch.equal(traced(twin), expected)
    twin.module.model.embed_tokens.weight.data.mul_(2)
    assert not torch.equal(traced(twin), expected)
    assert torch.equal(traced(model), expected)


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


def test_the_lock_belongs_to_the_module() -> None:
    module = build("qwen2")
    assert dlens.load(module).lock is dlens.load(module).lock
    assert dlens.load(module).lock is not dlens.load(copy.deepcopy(module)).lock


def test_the_fingerprint_follows_the_weights() -> None:
    model = dlens.load(build("qwen2"))
    first = model.fingerprint()
    assert model.fingerprint() == first
    with torch.no_grad():
        model.module.model.layers[1].mlp.up_proj.weight.mul_(2)
    second = model.fingerprint()
    model.module.model.norm.weight = nn.Parameter(torch.full((32,), 0.5))
    third = model.fingerprint()
    model.module.model.embed_tokens.weight.data[:, 3] += 1
    assert len({first, second, third, model.fingerprint()}) == 4


def test_padding_is_never_the_mask_nor_outside_the_embedding(diffusion: dlens.Model) -> None:
    assert diffusion.pad_token_id == 0
    family = replace(diffusion.family, mask_token_id=0)
    assert replace(diffusion, family=family).pad_token_id == 1
    model = dlens.load(build("qwen2", eos_token_id=[500, 7]))
    assert (model.eos_token_id, model.pad_token_id) == (500, 0)


def test_context_length() -> None:
    assert dlens.load(build("gpt2")).n_positions == 64
    assert dlens.load(build("pythia")).n_positions == 64

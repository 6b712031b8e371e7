"""Only attention where something acts is taken over: in the blocks and at the steps that are named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.whole.architectures import CONFIGS, build
from tests.whole.operations import IDS

LAYERS = range(4)


@pytest.fixture
def module() -> Any:
    return build(copy.deepcopy(CONFIGS["qwen3"][0]))


@pytest.fixture
def trace(module: Any) -> dlens.Trace:
    return dlens.trace(dlens.load(module, verify=False))


def taken(module: Any) -> list[int]:
    """The blocks whose attention is taken over now."""
    layers = module.model.layers
    return [layer for layer in LAYERS if layers[layer].self_attn.config._attn_implementation != "sdpa"]


def test_blocks_are_taken_over_at_the_steps_that_ask_for_them(module: Any, trace: dlens.Trace) -> None:
    seen: list[list[int]] = []

    def look(value: Tensor, hook: Any) -> None:
        seen.append(taken(module))

    looking = trace.hook("blocks.0.hook_resid_post", look)
    looking.generate(IDS, 4)
    assert seen == [[]] * 4
    seen.clear()
    looking.capture("pattern", layers=[1, 3], steps=[1, 2]).ablate(2, at="rot_q", steps=[2]).generate(IDS, 4)
    assert seen == [[], [1, 3], [1, 2, 3], []] and taken(module) == []


def test_the_other_blocks_run_as_before(trace: dlens.Trace) -> None:
    plain = trace.capture("resid_post").forward(IDS)["resid_post"]
    looked = trace.capture("resid_post").capture("pattern", layers=[2]).forward(IDS)["resid_post"]
    assert torch.equal(looked[:2], plain[:2]) and torch.allclose(looked[2:], plain[2:], atol=1e-4)


def test_points_come_in_the_order_of_the_forward_with_their_place(trace: dlens.Trace) -> None:
    seen: list[tuple[str, Any]] = []

    def look(value: Tensor, hook: Any) -> None:
        seen.append((hook.name, hook.step))

    points = ("pattern", "z", "attn_scores", "v", "rot_k", "q", "rot_q", "k")
    for point in points:
        trace = trace.hook(point, look, layers=[1], steps=[1])
    trace.generate(IDS, 3)
    order = ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z")
    assert seen == [(f"blocks.1.attn.hook_{point}", 1) for point in order]


def test_operations_at_one_point_act_in_the_order_written(trace: dlens.Trace) -> None:
    before = trace.capture("pattern", layers=[1]).ablate(1, at="pattern", heads=[0]).forward(IDS)["pattern"]
    after = trace.ablate(1, at="pattern", heads=[0]).capture("pattern", layers=[1]).forward(IDS)["pattern"]
    assert torch.equal(before, trace.capture("pattern", layers=[1]).forward(IDS)["pattern"])
    assert after[0, :, 0].abs().max() == 0 and torch.equal(after[:, :, 1:], before[:, :, 1:])


def test_a_swapped_block_acts_in_its_new_place(module: Any, trace: dlens.Trace) -> None:
    found = trace.swap(1, 2).capture("pattern").ablate(1, at="pattern", heads=[3]).capture("logits").forward(IDS)
    layers = module.model.layers
    layers[1], layers[2] = layers[2], layers[1]
    by_hand = dlens.trace(dlens.load(module, verify=False)).capture("pattern")
    expected = by_hand.ablate(1, at="pattern", heads=[3]).capture("logits").forward(IDS)
    for point in ("pattern", "logits"):
        assert torch.allclose(found[point], expected[point], atol=1e-5), point
    assert not torch.allclose(found["pattern"][1], found["pattern"][2], atol=1e-2)


def test_a_block_without_its_attention_has_no_pattern_and_the_others_do(trace: dlens.Trace) -> None:
    skipping = trace.skip([1], part="attn")
    with pytest.raises(ValueError, match="pattern of layer 1 does not exist where its attn is skipped"):
        skipping.capture("pattern")
    record = skipping.capture("pattern", layers=[2]).capture("resid_pre", "resid_mid", layers=[2]).forward(IDS)
    assert torch.allclose(record["pattern"].sum(-1), torch.ones(1, 2, 4, 8))


def test_tokens_and_keys_are_those_of_each_row(trace: dlens.Trace) -> None:
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist()]
    found = trace.knockout(1, source=[0], target=[-1]).capture("pattern", layers=[1]).forward(prompts)["pattern"][0]
    clean = trace.capture("pattern", layers=[1]).forward(prompts)["pattern"][0]
    for row, first in enumerate((0, 3)):
        assert found[row, :, -1, first].abs().max() == 0 and clean[row, :, -1, first].abs().min() > 0
        rest = clean[row, :, -1].clone()
        rest[:, first] = 0
        assert torch.allclose(found[row, :, -1], rest / rest.sum(-1, keepdim=True), atol=1e-6)
        assert torch.equal(found[row, :, :-1], clean[row, :, :-1])

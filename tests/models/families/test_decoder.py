"""The native layouts: hook sites hold what is added to the stream, and half a block can be skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens.models.family import Layout, Site
from tests.models.conftest import build
from tests.models.families.reading import IDS, read, zeroed


def summed(layout: Layout) -> list[str]:
    """The points that make up the stream."""
    return [point for point in ("attn_out", "resid_mid", "mlp_out") if point in layout.sites]


def test_the_stream_adds_up_at_every_layer(native: Any) -> None:
    model = dlens.load(native)
    layout, inputs = model.layout, model.family.inputs(IDS, None)
    for block in model.blocks:
        pre, post = (read(native, block, Site("", end), inputs) for end in ("input", "output"))
        part = {
            p: read(native, block.get_submodule(layout.sites[p].path), layout.sites[p], inputs) for p in summed(layout)
        }
        if "resid_mid" in layout.absent:
            torch.testing.assert_close(pre + part["attn_out"] + part["mlp_out"], post)
            continue
        assert torch.equal(pre + part["attn_out"], part["resid_mid"])
        assert torch.equal(part["resid_mid"] + part["mlp_out"], post)


def test_resid_pre_of_a_layer_is_resid_post_of_the_one_before(native: Any) -> None:
    model = dlens.load(native)
    inputs = model.family.inputs(IDS, None)
    for one, two in zip(model.blocks, model.blocks[1:], strict=False):
        assert torch.equal(read(native, one, Site(""), inputs), read(native, two, Site("", "input"), inputs))


def test_a_skipped_half_adds_nothing(native: Any) -> None:
    model = dlens.load(native)
    layout, inputs = model.layout, model.family.inputs(IDS, None)
    block = model.blocks[1]
    pre, post = (read(native, block, Site("", end), inputs) for end in ("input", "output"))
    attn = layout.sites["attn_out"]
    without_mlp = zeroed(native, block, layout.mlp_skip, inputs)
    assert torch.equal(without_mlp, pre + read(native, block.get_submodule(attn.path), attn, inputs))
    assert not torch.equal(without_mlp, post)
    both = zeroed(native, block, (*layout.attn_skip, *layout.mlp_skip), inputs)
    assert torch.equal(both, pre)


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "gpt2", "pythia"])
def test_patterns_are_the_weights_that_eager_attention_returns(name: str) -> None:
    pattern = dlens.trace(build(name)).capture("pattern").forward(IDS)["pattern"]
    assert pattern.shape == (4, 1, 4, 6, 6)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(4, 1, 4, 6))
    eager = build(name)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        returned = eager(IDS, output_attentions=True, use_cache=False).attentions
    assert torch.equal(pattern, torch.stack(returned))


def test_parallel_blocks_say_why_they_have_no_resid_mid() -> None:
    assert "side by side" in dlens.load(build("pythia")).layout.absent["resid_mid"]
    assert not dlens.load(build("neox-sequential")).layout.absent


def test_attention_types_come_from_the_config() -> None:
    assert dlens.load(build("gemma3")).attention_types == ("sliding_attention", "full_attention") * 2
    assert dlens.load(build("gpt2")).attention_types == ("full_attention",) * 4

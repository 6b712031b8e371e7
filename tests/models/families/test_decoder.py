"""The native layouts: hook sites hold what is added to the stream, and half a block can be skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.models.family import Fill, Layout, Site
from tests.models.conftest import build

IDS = torch.tensor([[5, 9, 2, 7, 31, 4]])


def read(module: Any, site_module: Any, site: Site, inputs: dict[str, Any]) -> Tensor:
    """One value by a plain hook."""
    kept: list[Any] = []

    def hook(part: Any, args: Any, kwargs: Any, output: Any) -> None:
        whole = (args[0] if args else kwargs["hidden_states"]) if site.end == "input" else output
        kept.append(whole[site.index] if isinstance(whole, tuple) else whole)

    handle = site_module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        module(**inputs)
    handle.remove()
    assert len(kept) == 1
    return kept[0]


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


def zeroed(module: Any, block: Any, fills: tuple[Fill, ...], inputs: dict[str, Any]) -> Tensor:
    """The block's output with these modules replaced by their fills."""
    hidden = read(module, block, Site("", "input"), inputs)
    parts = [block.get_submodule(fill.path) for fill in fills]
    for part, fill in zip(parts, fills, strict=True):
        value = fill.make(hidden, block)
        part.forward = lambda *args, value=value, **kwargs: value
    found = read(module, block, Site(""), inputs)
    for part in parts:
        del part.forward
    return found


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


def test_attention_weights_stand_at_the_pattern_site_with_eager_attention() -> None:
    for name in ("qwen2", "gemma3", "gpt2", "pythia"):
        module = build(name)
        module.set_attn_implementation("eager")
        model = dlens.load(module)
        site = model.layout.sites["pattern"]
        pattern = read(module, model.blocks[0].get_submodule(site.path), site, model.family.inputs(IDS, None))
        assert pattern.shape == (1, 4, 6, 6)
        torch.testing.assert_close(pattern.sum(-1), torch.ones(1, 4, 6))


def test_parallel_blocks_say_why_they_have_no_resid_mid() -> None:
    assert "side by side" in dlens.load(build("pythia")).layout.absent["resid_mid"]
    assert not dlens.load(build("neox-sequential")).layout.absent


def test_attention_types_come_from_the_config() -> None:
    assert dlens.load(build("gemma3")).attention_types == ("sliding_attention", "full_attention") * 2
    assert dlens.load(build("gpt2")).attention_types == ("full_attention",) * 4


def test_pack_spells_a_block_output() -> None:
    hidden = torch.zeros(1, 2, 3)
    layout = Layout(blocks="b", embed="e", norm="n", head=None)
    assert layout.pack(hidden) is hidden
    assert Layout(blocks="b", embed="e", norm="n", head=None, block_tuple=2).pack(hidden) == (hidden, None)


def test_a_family_with_an_impossible_shift_is_refused() -> None:
    with pytest.raises(ValueError, match="shift 0 of autoregressive family 'odd'; expected 1"):
        dlens.Family(name="odd", objective="autoregressive", shift=0)

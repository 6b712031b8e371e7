"""A layout that was found is the one that people wrote, for every architecture of which they wrote one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

import dlens
from dlens.models.families.decoder import llama_like
from dlens.models.family import Fill, Layout, Site, Zeros, native_inputs
from dlens.models.layout.find import few_tokens, find_layout
from tests.models.conftest import SIZE, build
from tests.models.layout.written import WRITTEN, dream


def found(module: Any) -> Layout:
    return find_layout(module, native_inputs, few_tokens(module))


def bare(layout: Layout) -> Layout:
    """Without what a layout only says in words."""
    return replace(layout, absent={})


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_found_is_what_was_written(name: str) -> None:
    assert bare(found(build(name))) == bare(WRITTEN[name]())


def test_names_mean_nothing() -> None:
    module = build("pythia", num_attention_heads=4)
    for block in module.gpt_neox.layers:
        parts = block._modules
        parts["o_proj"], parts["q_proj"] = parts.pop("attention"), parts.pop("mlp")
        block.attention, block.mlp = block.o_proj, block.q_proj
    sites = found(module).sites
    assert (sites["z"].path, sites["mlp_post"].path) == ("o_proj.dense", "q_proj.dense_4h_to_h")


def test_experts_have_no_neurons_of_their_own() -> None:
    config = transformers.GptOssConfig(
        **SIZE, num_local_experts=4, num_experts_per_tok=2, layer_types=["sliding_attention", "full_attention"] * 2
    )
    layout = found(transformers.AutoModelForCausalLM.from_config(config).eval())
    llama = llama_like()
    sites = {point: site for point, site in llama.sites.items() if point not in ("mlp_pre", "mlp_post")}
    expected = replace(llama, sites=sites, mlp_skip=(Fill("mlp", Zeros(2)),), reads=(), writes=())
    assert bare(layout) == bare(expected)
    assert layout.absent["mlp_post"] == "no linear module makes what its MLP adds"


def test_remote_code(dream_folder: Path) -> None:
    model = dlens.load(dream_folder, trust_remote_code=True, verify=False)
    layout = find_layout(model.module, model.family.inputs, few_tokens(model.module))
    assert bare(layout) == bare(dream())


def test_blocks_that_differ_have_layouts_of_their_own() -> None:
    config = transformers.Qwen3NextConfig(
        **SIZE, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
        num_experts=0, layer_types=["linear_attention", "full_attention"] * 2, mlp_only_layers=[0, 1, 2, 3],
    )  # fmt: skip
    layout = found(transformers.AutoModelForCausalLM.from_config(config).eval())
    assert {layout.at(i).sites["attn_out"].path for i in (0, 2)} == {"linear_attn"}
    assert {layout.at(i).sites["attn_out"].path for i in (1, 3)} == {"self_attn"}
    assert layout.sites["mlp_post"] == Site("mlp.down_proj", "input") and "q" not in layout.sites
    assert "is not made of projections" in layout.absent["q"]

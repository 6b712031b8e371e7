"""Hook sites that do not run once, or do not add up to the stream, are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

import dlens
from dlens.errors import VerificationError
from dlens.models.families.decoder import llama_like
from dlens.models.family import Family, Layout, Site
from dlens.models.proofs.sites import inner_widths
from tests.models.conftest import build


def test_a_site_that_never_runs() -> None:
    module = build("qwen2")
    for block in module.model.layers:
        block.unused = nn.Identity()
    layout = replace(llama_like(), sites={"mlp_out": Site("unused")})
    with pytest.raises(VerificationError, match="'unused' of block 0 of .* ran 0 times in one forward; expected once"):
        dlens.load(module, family=ar_with(layout))


def test_a_block_that_runs_twice() -> None:
    module = build("qwen2")
    module.model.layers[2] = module.model.layers[1]
    with pytest.raises(VerificationError, match=r"model.layers.1 runs 2 times in one forward; expected"):
        dlens.load(module)
    with pytest.raises(VerificationError, match="ran 2 times in one forward; expected once"):
        dlens.load(module, layout=llama_like())


def test_a_block_that_returns_something_else() -> None:
    layout = replace(llama_like(), block_tuple=2)
    with pytest.raises(VerificationError, match="block 0 of .* returns a tensor|Tensor; expected a tuple of 2"):
        dlens.load(build("qwen2"), family=ar_with(layout))


def test_sites_that_do_not_add_up() -> None:
    for point, wrong in (("attn_out", Site("input_layernorm")), ("mlp_out", Site("post_attention_layernorm"))):
        layout = replace(llama_like(), sites={**llama_like().sites, point: wrong})
        with pytest.raises(VerificationError, match=f"in block 0 of .* {point} is not resid_(mid|post); expected"):
            dlens.load(build("qwen2"), family=ar_with(layout))


def test_a_site_of_another_width() -> None:
    layout = replace(llama_like(), sites={**llama_like().sites, "mlp_out": Site("mlp.up_proj")})
    with pytest.raises(VerificationError, match=r"mlp_out of block 0 of .* has shape \[1, 8, \d+\]; expected "):
        dlens.load(build("qwen2"), family=ar_with(layout))


@pytest.mark.parametrize(
    ("point", "wrong"),
    [
        ("z", Site("self_attn.q_proj", "input", heads=True)),
        ("z", Site("self_attn.v_proj", "output", heads=True)),
        ("mlp_post", Site("mlp.gate_proj", "input")),
        ("mlp_post", Site("mlp.gate_proj")),
    ],
    ids=["z of queries", "z of values", "mlp_post of the gate's input", "mlp_post of the gate"],
)
def test_what_a_half_reads_last_decides_what_it_adds(point: str, wrong: Site) -> None:
    layout = replace(llama_like(), sites={**llama_like().sites, point: wrong})
    with pytest.raises(VerificationError, match=rf"with one {point} .* for two texts, block 0 of .* adds another"):
        dlens.load(build("qwen2"), family=ar_with(layout))


def test_z_is_as_wide_as_whole_heads() -> None:
    module = build("qwen2")
    module.config.num_attention_heads = 5
    with pytest.raises(VerificationError, match="z of .* is not as wide as 5 heads; expected otherwise"):
        dlens.load(module, layout=llama_like())
    assert "whole heads" in dlens.load(module).layout.absent["z"]


def test_a_block_without_the_module_has_no_such_point() -> None:
    module = build("qwen2")
    for block in module.model.layers[1:]:
        block.mlp = nn.Identity()
    model = dlens.load(module)
    assert "mlp_post" not in model.layout.sites and "z" in model.layout.sites
    with pytest.raises(ValueError, match=r"has no mlp_post: block 1 \(Qwen2DecoderLayer\): no linear module makes"):
        dlens.trace(model).capture("mlp_post")
    with pytest.raises(ValueError, match="has no mlp_post: its block 1 has no 'mlp.down_proj'; expected one of"):
        dlens.trace(dlens.load(module, layout=llama_like())).capture("mlp_post")


def test_widths_are_seen_when_they_are_asked_for() -> None:
    unproved = dlens.load(build("qwen2"), verify=False)
    proved = dlens.load(build("qwen2"))
    assert inner_widths(unproved) == inner_widths(proved)
    assert inner_widths(proved)[0, "z"] == proved.d_model


def test_gemma_read_as_llama_is_caught() -> None:
    with pytest.raises(VerificationError, match="is not resid_mid"):
        dlens.load(build("gemma2"), family=ar_with(llama_like()))


def ar_with(layout: Layout) -> Family:
    return Family(name="ar", objective="autoregressive", shift=1, layout=layout)

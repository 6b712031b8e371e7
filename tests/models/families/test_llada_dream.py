"""LLaDA's and Dream's layouts: values, half-block skips, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens.models.families.llada import llada_layout
from dlens.models.family import Site
from tests.models.families.test_decoder import IDS, read, zeroed


@pytest.fixture(params=["llada", "dream"])
def remote(request: pytest.FixtureRequest) -> dlens.Model:
    """Each of the two stand-ins."""
    return request.getfixturevalue(request.param)


def test_the_stream_adds_up(remote: dlens.Model) -> None:
    inputs = remote.family.inputs(IDS, None)
    for block in remote.blocks:
        pre, post = (read(remote.module, block, Site("", end), inputs) for end in ("input", "output"))
        part = {p: read(remote.module, block.get_submodule(s.path), s, inputs) for p, s in remote.layout.sites.items()}
        assert torch.equal(pre + part["attn_out"], part["resid_mid"])
        assert torch.equal(part["resid_mid"] + part["mlp_out"], post)


def test_a_skipped_half_adds_nothing(remote: dlens.Model) -> None:
    inputs, layout, block = remote.family.inputs(IDS, None), remote.layout, remote.blocks[1]
    pre = read(remote.module, block, Site("", "input"), inputs)
    attn = layout.sites["attn_out"]
    kept = pre + read(remote.module, block.get_submodule(attn.path), attn, inputs)
    assert torch.equal(zeroed(remote.module, block, layout.mlp_skip, inputs), kept)
    assert torch.equal(zeroed(remote.module, block, (*layout.attn_skip, *layout.mlp_skip), inputs), pre)


def test_a_block_gives_what_pack_spells(remote: dlens.Model) -> None:
    outputs: list[Any] = []
    handle = remote.blocks[0].register_forward_hook(lambda *args: outputs.append(args[-1]))
    with torch.no_grad():
        remote.module(**remote.family.inputs(IDS, None))
    handle.remove()
    assert len(outputs[0]) == len(remote.layout.pack(outputs[0][0]))


def test_padded_logits_equal_unpadded_ones(remote: dlens.Model) -> None:
    padded = torch.cat((torch.full((1, 3), remote.pad_token_id), IDS), dim=1)
    mask = torch.tensor([[False] * 3 + [True] * IDS.shape[1]])
    with torch.no_grad():
        alone = remote.module(**remote.family.inputs(IDS, None)).logits
        hidden = remote.module(**remote.family.inputs(padded, mask)).logits
    assert torch.isfinite(hidden).all()
    torch.testing.assert_close(hidden[:, 3:], alone, rtol=1e-4, atol=1e-4)


def test_facts(llada: dlens.Model, dream: dlens.Model) -> None:
    facts = [
        (m.family.name, m.family.shift, m.family.mask_token_id, m.n_positions, m.eos_token_id) for m in (llada, dream)
    ]
    assert facts == [("llada", 0, 99, 64, 98), ("dream", 1, 99, 64, 98)]
    assert llada.family.end_token_ids == ()  # LLaDA's EoT lies outside this small vocabulary
    for model in (llada, dream):
        assert "attention" in model.layout.absent["pattern"]


def test_other_kinds_of_llada_blocks_are_refused(llada: dlens.Model) -> None:
    config = llada.module.config
    config.block_type = "sequential"
    with pytest.raises(ValueError, match="block_type='sequential' .*; expected 'llama' and 1"):
        llada_layout(config)


def test_dream_hides_padded_keys_from_every_query_and_counts_positions_from_the_first_token(dream: dlens.Model) -> None:
    inputs = dream.family.inputs(torch.tensor([[98, 5, 9]]), torch.tensor([[False, True, True]]))
    # A query that sees nothing, as a padded one would under a mask of both, is NaN on some devices.
    assert inputs["attention_mask"].tolist() == [[[[False, True, True]] * 3]]
    assert inputs["position_ids"].tolist() == [[1, 0, 1]]
    assert dream.family.inputs(IDS, None)["attention_mask"] == "full"

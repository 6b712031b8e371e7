"""LLaDA2's layout: values, half-block skips, facts; its attention is causal between canvas blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dlens
from dlens.models.families.llada2 import LLADA2
from tests.models.families.remote import CHECKS


def load(folders: dict[str, Path], block: int | None = 4) -> dlens.Model:
    family = replace(LLADA2, block_length=block, mask_token_id=59)
    return dlens.load(folders["llada2_moe"], trust_remote_code=True, family=family)


@pytest.mark.parametrize("check", CHECKS)
def test_what_holds_of_every_layout(check: str, block_folders: dict[str, Path]) -> None:
    CHECKS[check](load(block_folders))


def test_facts(block_folders: dict[str, Path]) -> None:
    model = dlens.load(block_folders["llada2_moe"], trust_remote_code=True)
    assert (model.family.name, model.family.shift, model.family.mask_token_id, model.eos_token_id) == (
        "llada2",
        0,
        59,
        57,
    )
    assert model.family.block_length == 32 and model.honours_padding
    # Plain MLPs come before experts, and one projection gives queries, keys and values.
    assert sorted(model.layout.absent) == ["k", "mlp_post", "mlp_pre", "q", "v"]
    # Half of each head of 8 is rotated.
    assert model.module.model.rotary_emb.inv_freq.shape == (2,)


def test_a_token_moves_its_own_block_and_later_ones(block_folders: dict[str, Path]) -> None:
    ids = torch.arange(12)[None] + 3
    for block, moved in ((4, range(4, 12)), (None, range(12))):
        model = load(block_folders, block)
        changed = ids.clone()
        changed[0, 7] = 40
        with torch.no_grad():
            before, after = (model.module(**model.family.inputs(read, None)).logits[0] for read in (ids, changed))
        difference = (after - before).abs().amax(-1)
        assert (difference > 1e-4).nonzero().squeeze(1).tolist() == list(moved)

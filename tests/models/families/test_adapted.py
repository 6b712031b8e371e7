"""SDAR, Fast-dLLM v2, LLaDA-MoE and RND1: values, half-block skips, facts, padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dlens
from tests.models.families.remote import CHECKS

KINDS = ("sdar", "Fast_dLLM_Qwen", "lladamoe", "rnd1")
# What code that does not take a padding mask cannot hold.
PADDED = "padded logits equal unpadded ones"


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_of_every_layout(kind: str, block_folders: dict[str, Path]) -> None:
    model = dlens.load(block_folders[kind], trust_remote_code=True)
    for name, check in CHECKS.items():
        if name == "a block gives what pack spells" and model.layout.block_tuple is None:
            continue
        if name != PADDED or model.honours_padding:
            check(model)


def test_facts(block_folders: dict[str, Path]) -> None:
    found = {}
    for kind in KINDS:
        model = dlens.load(block_folders[kind], trust_remote_code=True)
        family = model.family
        found[kind] = (family.name, family.shift, family.block_length, model.layout.block_tuple, model.honours_padding)
        assert family.mask_token_id == 59 and "RND1Model" not in type(model.module).__name__
    assert found == {
        "sdar": ("sdar", 0, 4, 1, True),
        "Fast_dLLM_Qwen": ("fast-dllm-v2", 1, 4, None, False),
        "lladamoe": ("llada-moe", 0, None, 1, True),
        "rnd1": ("rnd1", 0, None, 2, False),
    }


def test_fast_dllm_is_told_its_block_length(block_folders: dict[str, Path]) -> None:
    model = dlens.load(block_folders["Fast_dLLM_Qwen"], trust_remote_code=True)
    ids = torch.tensor([[5, 6, 7]])
    assert model.family.inputs(ids, None)["block_size"] == 4

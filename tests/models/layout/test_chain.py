"""Blocks are found by what they hand on; what is none says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from dlens.errors import VerificationError
from dlens.models.layout.calls import watch
from dlens.models.layout.chain import find_chain, find_ends
from tests.models.layout.toy import IDS, Toy, sequential


def forward_of(module: nn.Module) -> Any:
    with torch.no_grad():
        return watch(module, {"input_ids": IDS})


def test_blocks_embedding_norm_and_head() -> None:
    module = Toy(sequential, sequential, sequential)
    forward = forward_of(module)
    chain = find_chain(module, forward)
    ends = find_ends(module, forward, chain)
    assert (chain.path, len(chain.blocks)) == ("list", 3)
    assert (ends.embed, ends.width, ends.norm, ends.head) == ("e", 8, "n", "h")


def test_a_head_without_a_norm() -> None:
    module = Toy(sequential, sequential)
    module.n = nn.Identity()  # pyright: ignore
    forward = forward_of(module)
    assert find_ends(module, forward, find_chain(module, forward)).norm is None


def test_one_block_that_runs_twice() -> None:
    module = Toy(sequential, sequential)
    module.list[1] = module.list[0]
    with pytest.raises(VerificationError, match="list.0 runs 2 times in one forward; expected a ModuleList"):
        find_chain(module, forward_of(module))


def test_something_between_blocks() -> None:
    module = Toy(sequential, sequential)
    module.list[1].register_forward_pre_hook(lambda _m, args: (args[0] * 2,), prepend=True)
    with pytest.raises(VerificationError, match=r"what leaves list.0 is not what enters list.1"):
        find_chain(module, forward_of(module))


def test_of_several_lists_the_one_that_ends_in_the_logits() -> None:
    module = Toy(sequential, sequential)
    module.beside = nn.ModuleList(Toy(sequential, sequential, sequential).list)
    module.e.register_forward_hook(lambda _m, _a, out: run(module.beside, out))
    forward = forward_of(module)
    assert find_chain(module, forward).path == "list"
    with pytest.raises(
        VerificationError, match=r"several lists of blocks \(list, beside\), and of none of them is seen"
    ):
        find_chain(module, replace(forward, logits=forward.logits * 2))


def run(blocks: Any, stream: torch.Tensor) -> None:
    for block in blocks:
        stream = block(stream)


def test_no_list_at_all() -> None:
    module = Toy(sequential)
    module.list = nn.Sequential(*module.list)  # pyright: ignore
    with pytest.raises(VerificationError, match="Toy has no blocks that dlens can find: it holds no list of modules"):
        find_chain(module, forward_of(module))

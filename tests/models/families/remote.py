"""What holds of every layout of remote code: values, half-block skips, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import dlens
from dlens.models.family import Site
from tests.models.families.reading import IDS, read, zeroed


def the_stream_adds_up(remote: dlens.Model) -> None:
    inputs = remote.family.inputs(IDS, None)
    for block in remote.blocks:
        pre, post = (read(remote.module, block, Site("", end), inputs) for end in ("input", "output"))
        part = {p: read(remote.module, block.get_submodule(s.path), s, inputs) for p, s in remote.layout.sites.items()}
        assert torch.equal(pre + part["attn_out"], part["resid_mid"])
        assert torch.equal(part["resid_mid"] + part["mlp_out"], post)


def a_skipped_half_adds_nothing(remote: dlens.Model) -> None:
    inputs, layout, block = remote.family.inputs(IDS, None), remote.layout, remote.blocks[1]
    pre = read(remote.module, block, Site("", "input"), inputs)
    attn = layout.sites["attn_out"]
    kept = pre + read(remote.module, block.get_submodule(attn.path), attn, inputs)
    assert torch.equal(zeroed(remote.module, block, layout.mlp_skip, inputs), kept)
    assert torch.equal(zeroed(remote.module, block, (*layout.attn_skip, *layout.mlp_skip), inputs), pre)


def a_block_gives_what_pack_spells(remote: dlens.Model) -> None:
    outputs: list[Any] = []
    handle = remote.blocks[0].register_forward_hook(lambda *args: outputs.append(args[-1]))
    with torch.no_grad():
        remote.module(**remote.family.inputs(IDS, None))
    handle.remove()
    assert len(outputs[0]) == len(remote.layout.pack(outputs[0][0]))


def padded_logits_equal_unpadded_ones(remote: dlens.Model) -> None:
    padded = torch.cat((torch.full((1, 3), remote.pad_token_id), IDS), dim=1)
    mask = torch.tensor([[False] * 3 + [True] * IDS.shape[1]])
    with torch.no_grad():
        alone = remote.module(**remote.family.inputs(IDS, None)).logits
        hidden = remote.module(**remote.family.inputs(padded, mask)).logits
    assert torch.isfinite(hidden).all()
    torch.testing.assert_close(hidden[:, 3:], alone, rtol=1e-4, atol=1e-4)


CHECKS: dict[str, Callable[[dlens.Model], None]] = {
    "the stream adds up": the_stream_adds_up,
    "a skipped half adds nothing": a_skipped_half_adds_nothing,
    "a block gives what pack spells": a_block_gives_what_pack_spells,
    "padded logits equal unpadded ones": padded_logits_equal_unpadded_ones,
}

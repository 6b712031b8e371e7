"""BD3-LM and MDLM: where their parts are, what reaches them of the noise, what their modulation takes away."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import dlens
from dlens.models.families.dit import noise_of, sigma_of
from dlens.models.family import Site
from tests.models.families.reading import IDS, read, zeroed
from tests.standins import save_blocks

KINDS = ("bd3lm", "mdlm")


@pytest.mark.parametrize("kind", KINDS)
def test_facts(kind: str, block_folders: dict[str, Path]) -> None:
    model = dlens.load(block_folders[kind], trust_remote_code=True)
    assert (model.family.name, model.family.shift, model.n_layers, model.d_model, model.n_heads) == (kind, 0, 3, 32, 4)
    assert (model.n_positions, model.vocab_size, model.honours_padding) == (48, 60, False)
    assert model.family.block_length == {"bd3lm": 4, "mdlm": None}[kind]
    assert sorted(model.layout.absent) == ["attn_out", "mlp_out"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_modulation_halves_add_up(kind: str, tmp_path: Path) -> None:
    model = dlens.load(save_blocks(tmp_path, kind, adaln=False), trust_remote_code=True)
    inputs = model.family.inputs(IDS, None)
    for block in model.blocks:
        pre, post = (read(model.module, block, Site("", end), inputs) for end in ("input", "output"))
        part = {p: read(model.module, block.get_submodule(s.path), s, inputs) for p, s in model.layout.sites.items()}
        assert torch.equal(pre + part["attn_out"], part["resid_mid"])
        assert torch.equal(part["resid_mid"] + part["mlp_out"], post)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_half_adds_nothing(kind: str, block_folders: dict[str, Path]) -> None:
    model = dlens.load(block_folders[kind], trust_remote_code=True)
    inputs, layout, block = model.family.inputs(IDS, None), model.layout, model.blocks[1]
    pre = read(model.module, block, Site("", "input"), inputs)
    mid = layout.sites["resid_mid"]
    kept = read(model.module, block.get_submodule(mid.path), mid, inputs)
    # The modulation's own shift is all that a skipped half leaves: nothing.
    assert torch.equal(zeroed(model.module, block, layout.mlp_skip, inputs), kept)
    assert torch.equal(zeroed(model.module, block, (*layout.attn_skip, *layout.mlp_skip), inputs), pre)


def test_the_noise_is_that_of_the_canvas() -> None:
    ids = torch.tensor([[7, 7, 3, 4, 7], [7, 3, 3, 4, 4]])
    real = torch.tensor([[True] * 5, [False, True, True, True, True]])
    assert noise_of(ids, real, 7).tolist() == pytest.approx([0.6, 0.0])
    found = sigma_of(torch.tensor([0.0, 0.5, 1.0])).tolist()
    assert found == pytest.approx([0.0, -math.log(1 - 0.999 * 0.5), -math.log(0.001)], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_told_the_noise_hears_of_masks_anywhere(kind: str, tmp_path: Path) -> None:
    one, other = torch.arange(3, 11)[None], torch.arange(3, 11)[None].clone()
    other[0, 4:] = 59
    moved = {}
    for told in (False, True):
        model = dlens.load(save_blocks(tmp_path / str(told), kind, time_conditioning=told), trust_remote_code=True)
        with torch.no_grad():
            a, b = (model.module(**model.family.inputs(ids, None)).logits[0, :4] for ids in (one, other))
        moved[told] = float((a - b).abs().max())
    # Blocks of 4: without the noise, the first one does not see the masks of the second.
    assert moved[True] > 1e-3 and (moved[False] == 0) == (kind == "bd3lm")


def test_a_logit_lens_is_refused_where_the_noise_modulates_the_head(
    block_folders: dict[str, Path], tmp_path: Path
) -> None:
    model = dlens.load(block_folders["bd3lm"], trust_remote_code=True)
    with pytest.raises(dlens.VerificationError, match="norm and head of .* differ from its own by .*; leave out"):
        dlens.trace(model).measure(dlens.LogitLens()).forward([[5, 6, 7, 8]])
    plain = dlens.load(save_blocks(tmp_path, "bd3lm", adaln=False), trust_remote_code=True)
    assert dlens.trace(plain).measure(dlens.LogitLens()).forward([[5, 6, 59, 8]]).measures

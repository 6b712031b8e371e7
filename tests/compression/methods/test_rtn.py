"""Rounding to the nearest level."""

import pytest
import torch

from dlens.compression.methods.method import Ask
from dlens.compression.methods.rtn import rtn


def published(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """The grid of arXiv 2605.06366's code, a weight at a time."""
    found = weight.clone()
    top = 2**bits - 1
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group):
            part = weight[row, start : start + group]
            scale = 2.0 * part.abs().max().clamp(min=1e-10) / top
            level = torch.clamp(torch.round(part / scale) + (top + 1) / 2, 0, top)
            found[row, start : start + group] = scale * (level - (top + 1) / 2)
    return found


def test_it_is_the_published_grid_to_the_bit() -> None:
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    weight[2, :8] = 0
    for bits in (2, 3, 4, 8):
        for group in (4, 8, 32):
            assert torch.equal(rtn(weight, None, Ask(bits=bits, group=group)), published(weight, bits, group))


def test_a_group_has_so_many_levels_in_any_type() -> None:
    weight = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        found = rtn(weight.to(kind), None, Ask(bits=3, group=256))
        assert found.dtype == kind
        assert {len(set(row.tolist())) for row in found.reshape(-1, 256)} <= {7, 8}


def test_without_symmetry_both_ends_are_levels() -> None:
    weight = torch.tensor([[-1.0, 0.25, 0.5, 6.0], [1.0, 2.0, 3.0, 4.0]])
    found = rtn(weight, None, Ask(bits=3, symmetric=False))
    assert found[0].tolist() == [-1.0, 0.0, 0.0, 6.0]
    assert found[1].tolist() == pytest.approx([4.0 / 7 * level for level in (2, 3, 5, 7)])


def test_weights_that_stay_do_and_shape_no_level() -> None:
    weight = torch.tensor([[1.0, -0.4, 100.0, 0.2]])
    kept = torch.tensor([[False, False, True, False]])
    alone = rtn(torch.tensor([[1.0, -0.4, 0.2]]), None, Ask(bits=3))[0]
    assert torch.equal(rtn(weight, None, Ask(bits=3, kept=kept))[0], torch.tensor([*alone[:2], 100.0, alone[2]]))

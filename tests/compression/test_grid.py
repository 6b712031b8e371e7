"""The levels of a quantised weight."""

import pytest
import torch

from dlens.compression.grid import grid_of, round_to


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_levels_lie_around_zero(bits: int) -> None:
    grid = grid_of(torch.tensor([[-3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), bits, symmetric=True)
    assert grid.scale[0].item() == pytest.approx(6 / (2**bits - 1)) and grid.zero[0] == 2 ** (bits - 1)
    # What lies beyond takes the last level; a row of zeros stays one.
    far = round_to(torch.tensor([[-99.0, 99.0], [0.0, 0.0]]), grid)
    assert far[0].tolist() == pytest.approx([-(2 ** (bits - 1)) * 6 / (2**bits - 1), 3.0 - 3.0 / (2**bits - 1)])
    assert far[1].tolist() == [0, 0]


def test_other_levels_reach_from_end_to_end_and_hold_zero() -> None:
    weights = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) + 2
    grid = grid_of(weights, 4, symmetric=False)
    ends = torch.stack([grid.scale * (0 - grid.zero), grid.scale * (15 - grid.zero)])
    assert torch.equal(round_to(torch.zeros(5, 1), grid), torch.zeros(5, 1))
    low, high = weights.amin(1, keepdim=True).clamp(max=0), weights.amax(1, keepdim=True)
    assert bool(((ends - torch.stack([low, high])).abs() <= grid.scale / 2 + 1e-6).all())
    assert bool(((round_to(weights, grid) - weights).abs() <= grid.scale + 1e-6).all())

"""The smallest weights go."""

import torch

from dlens.compression.methods.magnitude import lowest, magnitude
from dlens.compression.methods.method import Ask


def test_the_smallest_of_the_whole_matrix_go() -> None:
    weight = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.5, 0.9):
        count = int(63 * share)
        limit = weight.abs().flatten().sort().values[count]
        assert torch.equal(magnitude(weight, None, Ask(sparsity=share)), weight.masked_fill(weight.abs() < limit, 0))


def test_of_equal_weights_the_first_go() -> None:
    assert magnitude(torch.ones(2, 3), None, Ask(sparsity=0.5)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert lowest(torch.zeros(2, 4), 0.3).tolist() == [[True, False, False, False]] * 2


def test_weights_that_stay_do() -> None:
    kept = torch.tensor([[True, False, False, False]])
    found = magnitude(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), None, Ask(sparsity=0.7, kept=kept))
    assert torch.equal(found, torch.tensor([[0.1, 0.0, 0.0, 0.4]]))

"""Weights go by their size times the norm of their input."""

import torch

from dlens.compression.methods.method import Ask, Inputs
from dlens.compression.methods.wanda import scores_of, wanda


def test_each_row_loses_its_lowest_products() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, norms = torch.randn(6, 10, generator=generator), torch.rand(10, generator=generator) * 9
    found = wanda(weight, Inputs(norms), Ask(sparsity=0.37))
    for row, new in zip(weight.tolist(), found.tolist(), strict=True):
        order = sorted(range(10), key=lambda j: abs(row[j]) * float(norms[j]) ** 0.5)
        assert new == [0.0 if j in order[:3] else row[j] for j in range(10)]


def test_a_channel_of_large_inputs_stays() -> None:
    norms = torch.ones(4)
    norms[1] = 1e6
    weight = torch.tensor([[4.0, 0.1, 3.0, 2.0]])
    assert torch.equal(wanda(weight, Inputs(norms), Ask(sparsity=0.5)), torch.tensor([[4.0, 0.1, 0.0, 0.0]]))
    assert scores_of(weight, Inputs(norms))[0, 1] == 100


def test_weights_that_stay_do() -> None:
    kept = torch.tensor([[False, False, True, False]])
    found = wanda(torch.tensor([[4.0, 3.0, 0.1, 2.0]]), Inputs(torch.ones(4)), Ask(sparsity=0.7, kept=kept))
    assert torch.equal(found, torch.tensor([[4.0, 0.0, 0.1, 0.0]]))

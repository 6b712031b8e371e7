"""SparseGPT against surgery by the inverse itself, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor

from dlens.compression.methods.method import Ask, Inputs
from dlens.compression.methods.sparsegpt import sparsegpt
from tests.compression.methods.textbook import pivots, problems, surgery


def without_the_cheapest(divisors: Tensor, gone: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Columns without half of the weights of each 128, those that cost least; `gone` tells which."""

    def new(work: Tensor, j: int) -> Tensor:
        if j % 128 == 0:
            costs = (work[:, j : j + 128] ** 2 / divisors[j : j + 128]).flatten().tolist()
            width = min(128, work.shape[1] - j)
            for at in sorted(range(len(costs)), key=costs.__getitem__)[: len(costs) // 2]:
                gone[at // width, j + at % width] = True
        return work[:, j].masked_fill(gone[:, j], 0)

    return new


def test_it_is_surgery_on_the_weights_that_cost_least() -> None:
    for weight, hessian in problems():
        divisors = torch.tensor(pivots(hessian))
        gone = torch.zeros_like(weight, dtype=torch.bool)
        found = sparsegpt(weight, Inputs(hessian.diagonal(), hessian), Ask(sparsity=0.5))
        expected = surgery(weight, hessian, without_the_cheapest(divisors, gone))
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)
        assert torch.equal(found == 0, gone)


def test_weights_that_stay_do() -> None:
    weight, hessian = list(problems())[1]
    weight[:, 3] = 1e-6
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[:, 3] = True
    inputs = Inputs(hessian.diagonal(), hessian)
    assert sparsegpt(weight, inputs, Ask(sparsity=0.5))[:, 3].eq(0).any()
    assert sparsegpt(weight, inputs, Ask(sparsity=0.5, kept=kept))[:, 3].ne(0).all()

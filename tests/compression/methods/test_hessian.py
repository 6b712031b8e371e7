"""The factor of the inverse Hessian."""

import pytest
import torch

from dlens.compression.methods.hessian import compensated, free_columns, in_parts, inverse_factor
from dlens.compression.methods.method import Inputs
from tests.compression.methods.textbook import damped, pivots, problems, surgery


def test_the_factor_gives_the_inverse_and_its_diagonal_the_pivots() -> None:
    for _, hessian in problems():
        factor = inverse_factor(hessian)
        assert torch.allclose(factor.T @ factor, torch.linalg.inv(damped(hessian)), rtol=1e-6, atol=0)
        assert torch.equal(factor, factor.triu())
        assert torch.allclose(factor.diagonal() ** 2, torch.tensor(pivots(hessian), dtype=torch.float64))


def test_a_singular_hessian_is_damped_more() -> None:
    hessian = torch.diag(torch.tensor([1.0, -0.05, 1.0]))
    factor = inverse_factor(hessian)
    assert bool(factor.isfinite().all()) and float(factor[1, 1] ** 2) == pytest.approx(1 / (-0.05 + 0.065))


def test_one_that_has_no_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the Hessian of 2 inputs has no inverse.*give more calibration text"):
        inverse_factor(torch.tensor([[1.0, 0.0], [0.0, -5.0]]))
    with pytest.raises(ValueError, match="no inverse"):
        inverse_factor(torch.full((2, 2), torch.nan))


def test_parts_of_any_width_give_the_same() -> None:
    for weight, hessian in problems():
        inputs = Inputs(hessian.diagonal(), hessian)

        def begin(part, diagonal, start):
            return lambda old, i: old.round()

        order = free_columns(weight, None)
        few, many = (compensated(weight, inputs, order, in_parts(len(order), size), begin) for size in (3, 1000))
        assert torch.allclose(few, many, rtol=0, atol=1e-9) and torch.equal(few, few.round())


def test_columns_that_stay_make_up_for_nothing() -> None:
    weight, hessian = list(problems())[1]
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[:, [0, 5, 63]] = True
    kept[2] = True
    order = free_columns(weight, kept)
    assert order.tolist() == [column for column in range(64) if column not in (0, 5, 63)]

    def begin(part, diagonal, start):
        return lambda old, i: old.round()

    found = compensated(weight, Inputs(hessian.diagonal(), hessian), order, in_parts(len(order)), begin)
    alone = surgery(weight[:, order], hessian[order][:, order], lambda work, j: work[:, j].round())
    assert torch.equal(found[:, [0, 5, 63]], weight[:, [0, 5, 63]])
    assert torch.allclose(found[:, order], alone, rtol=0, atol=1e-9)

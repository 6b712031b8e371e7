"""GPTQ against surgery by the inverse itself, in float64."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from dlens.compression.methods.gptq import gptq
from dlens.compression.methods.method import Ask, Inputs
from dlens.compression.methods.rtn import rtn
from tests.compression.methods.textbook import problems, surgery


def nearest(values: Tensor, like: Tensor, bits: int) -> Tensor:
    """Each value at the nearest of 2^bits levels around zero that suit the largest of `like` in its row."""
    scale = like.abs().amax(1) * 2 / (2**bits - 1)
    return (values / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale


def on_the_way(width: int) -> Callable[[Tensor, int], Tensor]:
    """Levels of a group from the matrix as it stands at its first column."""
    like: dict[int, Tensor] = {}

    def new(work: Tensor, j: int) -> Tensor:
        like.setdefault(j // width, work[:, j // width * width : (j // width + 1) * width].clone())
        return nearest(work[:, j], like[j // width], 3)

    return new


def as_it_was(weight: Tensor, width: int, order: Sequence[int]) -> Callable[[Tensor, int], Tensor]:
    """Levels of a group from the matrix as it was."""

    def new(work: Tensor, j: int) -> Tensor:
        start = order[j] // width * width
        return nearest(work[:, j], weight[:, start : start + width], 4)

    return new


@pytest.mark.parametrize("group", [8, None])
def test_from_left_to_right_it_is_surgery_with_levels_found_on_the_way(group: int | None) -> None:
    for weight, hessian in problems():
        width = group or weight.shape[1]
        # The largest weight of a group lies halfway between two levels as long as no error has reached it.
        weight[:, ::width] *= 0.1
        found = gptq(weight, Inputs(hessian.diagonal(), hessian), Ask(bits=3, group=group, act_order=False))
        assert torch.allclose(found, surgery(weight, hessian, on_the_way(width)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("group", [8, None])
def test_in_order_of_inputs_levels_are_those_of_the_matrix_as_it_was(group: int | None) -> None:
    for weight, hessian in problems():
        width = group or weight.shape[1]
        order = sorted(range(len(hessian)), key=lambda j: -float(hessian[j, j]))
        new = as_it_was(weight, width, order)
        found = gptq(weight, Inputs(hessian.diagonal(), hessian), Ask(bits=4, group=group))
        expected = surgery(weight[:, order], hessian[order][:, order], new)
        assert torch.allclose(found[:, order], expected, rtol=0, atol=1e-9)


def test_it_changes_outputs_less_than_rounding_alone() -> None:
    for weight, hessian in problems():
        inputs = Inputs(hessian.diagonal(), hessian)
        losses = []
        for act_order in (True, False):
            off = gptq(weight, inputs, Ask(bits=3, group=8, act_order=act_order)) - weight
            losses.append(float(((off @ hessian) * off).sum()))
        off = rtn(weight, None, Ask(bits=3, group=8)) - weight
        assert max(losses) < float(((off @ hessian) * off).sum())


def test_weights_that_stay_do_and_shape_no_level() -> None:
    weight, hessian = list(problems())[1]
    weight[:, 3] = 100.0
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept[:, 3] = True
    for act_order in (True, False):
        ask = Ask(bits=3, group=8, act_order=act_order, kept=kept)
        found = gptq(weight, Inputs(hessian.diagonal(), hessian), ask)
        assert torch.equal(found[:, 3], weight[:, 3])
        assert float(found[:, [0, 1, 2, 4, 5, 6, 7]].abs().max()) < 10


def test_a_column_without_input_is_zero() -> None:
    weight, hessian = next(problems())
    hessian[2] = hessian[:, 2] = 0
    found = gptq(weight, Inputs(hessian.diagonal(), hessian), Ask(bits=3))
    assert found[:, 2].eq(0).all() and found[:, 3].ne(0).any()

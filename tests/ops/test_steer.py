"""Steer on hand-written numbers."""

import numpy as np
import pytest
import torch

import dlens
from dlens.ops.base.scope import Scope
from dlens.ops.steer import Steer, as_scale
from tests.ops.targets import DIFFUSION, VALUE, place
from tests.refusing import assert_three_parts, refused
from tests.unchecked import unchecked

VECTOR = torch.tensor([1.0, 0.0, -2.0])


def test_the_vector_is_added_as_often_as_scale_says():
    assert Steer(vector=VECTOR).edit(VALUE, place()).tolist() == [[[2, 2, 1], [5, 5, 4]]]
    assert Steer(vector=VECTOR, scale=-0.5).edit(VALUE, place()).tolist() == [[[0.5, 2, 4], [3.5, 5, 7]]]


def test_each_layer_has_its_row():
    rows = torch.arange(12.0).reshape(4, 3)
    everywhere = Steer(vector=rows)
    everywhere.check(DIFFUSION)
    assert everywhere.edit(VALUE, place(layer=2)).tolist() == [[[7, 9, 11], [10, 12, 14]]]
    named = Steer(vector=rows[:2], layers=(3, 1))
    named.check(DIFFUSION)
    assert named.edit(VALUE, place(layer=3)).tolist() == [[[1, 3, 5], [4, 6, 8]]]
    assert named.edit(VALUE, place(layer=1)).tolist() == [[[4, 6, 8], [7, 9, 11]]]


def test_words_and_plan():
    op = Steer(vector=VECTOR, scale=4.0, layers=(1,), tokens="last", scope=Scope(noise=(0.5, 1)))
    assert op.words() == "add 4 x a vector [3] to resid_post of layers 1 on the last token at noise 0.5 to 1"
    expected = {"op": "steer", "scale": 4.0, "shape": [3], "at": "resid_post", "layers": [1]}
    assert op.to_json() == expected | {"tokens": "the last token", "noise": [0.5, 1]}


@pytest.mark.parametrize(("shape", "layers"), [((4,), None), ((3, 3), None), ((4, 3), (0, 1)), ((1, 1, 3), None)])
def test_vectors_of_a_wrong_shape_raise(shape, layers):
    n_rows = 4 if layers is None else len(layers)
    with pytest.raises(ValueError, match=rf"has shape \(.*; expected \[3\] or \[{n_rows}, 3\] .*; reshape it or name"):
        Steer(vector=torch.zeros(shape), layers=layers).check(DIFFUSION)


def test_a_point_that_is_none_raises():
    with pytest.raises(
        ValueError, match="at='resid_psot'; expected a hook point: embed, resid_pre, .*; did you mean 'resid_post'"
    ):
        Steer(vector=VECTOR, at="resid_psot").check(DIFFUSION)


def test_a_factor_of_an_operation_made_by_hand_is_read_too():
    with pytest.raises(ValueError, match="scale=nan; expected a finite number; pass a float"):
        Steer(vector=VECTOR, scale=float("nan")).check(DIFFUSION)


def test_a_scale_for_each_step():
    op = Steer(vector=VECTOR, scale=(2.0, 0.0))
    assert op.edit(VALUE, place(step=0)).tolist() == [[[3, 2, -1], [6, 5, 2]]]
    assert op.edit(VALUE, place(step=1)).tolist() == VALUE.tolist()
    assert op.words() == "add 0 to 2 (by step) x a vector [3] to resid_post of all layers"
    assert op.to_json()["scale"] == [2.0, 0.0]


@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), torch.tensor(2.0)])
def test_a_factor_of_any_type(scale):
    assert as_scale(scale) == 2.0 and as_scale([scale, 0]) == (2.0, 0.0)
    assert as_scale(torch.tensor([2.0, 0.0])) == as_scale(np.array([2.0, 0.0])) == (2.0, 0.0)


@pytest.mark.parametrize("scale", ["x", None, [], [1.0, None], [[1.0]], float("inf")], ids=str)
def test_what_is_no_factor_raises(scale):
    with unchecked(), pytest.raises(ValueError) as caught:
        as_scale(scale)
    assert_three_parts(str(caught.value), "scale=")


def test_as_many_scales_as_planned_steps(diffusion):
    trace = dlens.trace(diffusion).steer(torch.zeros(192), layers=3, scale=[1.0, 2.0])
    with refused(diffusion, ValueError, "scale has 2 numbers for a run of 3 planned steps"):
        trace.generate("Once upon a time", 3)
    assert trace.generate("Once upon a time", 2).plan[0]["scale"] == [1.0, 2.0]

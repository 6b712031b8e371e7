"""Layers and points that operations name, against the facts of a model."""

import pytest

from dlens.ops.base.target import Target
from tests.ops.targets import DIFFUSION


def test_layer_numbers_name_places():
    assert [DIFFUSION.layer(layer) for layer in (0, 3, -1, -4)] == [0, 3, 3, 0]
    assert DIFFUSION.layers([3, -4, 0, -1]) == (0, 3)
    assert DIFFUSION.layers(None) == (0, 1, 2, 3)
    assert DIFFUSION.places(None) is None and DIFFUSION.places(2) == (2,)
    assert DIFFUSION.places(slice(-2, None)) == (2, 3) and DIFFUSION.places([3, 3, -1, 0]) == (3, 0)


@pytest.mark.parametrize("layer", [4, -5, 100])
def test_a_layer_out_of_range_raises(layer):
    with pytest.raises(IndexError, match=rf"layer {layer} of tiny; expected -4 to 3, .*; give a smaller number"):
        DIFFUSION.layer(layer)


def test_an_absent_point_says_why_and_what_there_is():
    target = Target("tiny", 4, 3, True, absent={"resid_mid": "both halves run side by side", "pattern": "not given"})
    with pytest.raises(
        ValueError, match="tiny has no resid_mid: both halves run side by side; expected one of resid_pre, "
    ):
        target.require_point("resid_mid")
    target.require_point("resid_post")

"""Repeat: how many runs in all."""

import pytest

from dlens.ops.base.scope import Scope
from dlens.ops.repeat import Repeat
from tests.ops.targets import DIFFUSION


def test_words_and_plan():
    op = Repeat(layer=1, times=3, scope=Scope(-1))
    assert op.words() == "run layer 1 3 times at steps -1"
    assert op.to_json() == {"op": "repeat", "layers": [1], "times": 3, "steps": [-1]}


@pytest.mark.parametrize("times", [1, 0, -2])
def test_fewer_than_two_runs_raise(times):
    with pytest.raises(ValueError, match=rf"repeat\(1, times={times}\); expected at least 2, .*; use .skip\(\[1\]\)"):
        Repeat(layer=1, times=times).check(DIFFUSION)


def test_a_layer_out_of_range_raises():
    Repeat(layer=-4).check(DIFFUSION)
    with pytest.raises(IndexError, match="layer 4 of tiny"):
        Repeat(layer=4).check(DIFFUSION)

"""Swap: two places of one attention type."""

from dataclasses import replace

import pytest

from dlens.ops.base.scope import Scope
from dlens.ops.swap import Swap
from tests.ops.targets import DIFFUSION


def test_words_and_plan():
    op = Swap(i=2, j=0, scope=Scope(noise=(0, 0.5)))
    assert op.words() == "swap layers 2 and 0 at noise 0 to 0.5"
    assert op.to_json() == {"op": "swap", "layers": [2, 0], "noise": [0, 0.5]}


def test_one_layer_twice_raises():
    Swap(i=1, j=-1).check(DIFFUSION)
    with pytest.raises(ValueError, match=r"swap\(3, -1\) names one layer twice; expected two; give another layer"):
        Swap(i=3, j=-1).check(DIFFUSION)
    with pytest.raises(IndexError, match="layer 7 of tiny"):
        Swap(i=0, j=7).check(DIFFUSION)


def test_unlike_attention_types_raise():
    target = replace(DIFFUSION, attention_types=("full", "sliding", "full", "sliding"))
    Swap(i=0, j=2).check(target)
    with pytest.raises(ValueError, match=r"swap\(0, 3\): layer 0 has full and layer 3 sliding; expected .*; swap"):
        Swap(i=0, j=3).check(target)

"""Skip: which layers, which half."""

import pytest

from dlens.ops.base.scope import Scope
from dlens.ops.skip import Skip
from tests.ops.targets import AR, DIFFUSION
from tests.unchecked import unchecked


def test_words_and_plan():
    assert Skip(layers=(3, 1)).words() == "skip layers 3, 1"
    assert Skip(layers=(2,), part="attn", scope=Scope("early")).words() == "skip the attn of layers 2 at steps early"
    op = Skip(layers=(1, 2), part="mlp", scope=Scope(range(2), (0.5, 1)))
    assert op.to_json() == {"op": "skip", "layers": [1, 2], "part": "mlp", "steps": [0, 1], "noise": [0.5, 1]}


@pytest.mark.parametrize("part", ["block", "attn", "mlp"])
def test_what_fits_passes(part):
    Skip(layers=(0, 3, -1), part=part).check(DIFFUSION)


def test_what_does_not_fit_raises():
    with pytest.raises(IndexError, match="layer 4 of tiny; expected -4 to 3, "):
        Skip(layers=(0, 4)).check(DIFFUSION)
    with pytest.raises(ValueError, match="skip got no layers; expected at least one; write"):
        Skip(layers=()).check(DIFFUSION)
    with pytest.raises(ValueError, match=r"noise=\(0.0, 0.5\) on tiny-ar; expected a diffusion model, .*; use steps="):
        Skip(layers=(0,), scope=Scope(noise=(0, 0.5))).check(AR)


def test_an_unknown_part_raises():
    with (
        unchecked(),
        pytest.raises(ValueError, match="part='head'; expected one of block, attn, mlp; check the spelling"),
    ):
        Skip(layers=(0,), part="head").check(DIFFUSION)

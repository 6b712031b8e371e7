"""Capture: its name in the record, and what it needs."""

from dataclasses import replace

import pytest
import torch

from dlens.ops.base.scope import Scope
from dlens.ops.capture import Capture
from tests.ops.targets import AR, DIFFUSION


def test_key_words_and_plan():
    op = Capture(point="resid_post", layers=(0, 2), scope=Scope(range(2)))
    assert (op.key, op.words()) == ("resid_post", "capture resid_post of layers 0, 2 at steps 0:2")
    assert op.to_json() == {"op": "capture", "point": "resid_post", "layers": [0, 2], "steps": [0, 1]}
    assert Capture(point="resid_post", layers=(2,), single=2).key == "blocks.2.hook_resid_post"
    assert Capture(point="logits").words() == "capture logits"


def test_what_is_not_there_raises():
    Capture(point="attn_out").check(DIFFUSION)
    Capture(point="embed").check(DIFFUSION)
    with pytest.raises(IndexError, match="layer 9 of tiny"):
        Capture(point="resid_post", layers=(9,)).check(DIFFUSION)
    with pytest.raises(
        ValueError, match="tiny has no pattern: its attention runs as 'sdpa'; expected one of resid_pre"
    ):
        Capture(point="pattern").check(replace(DIFFUSION, absent={"pattern": "its attention runs as 'sdpa'"}))


def test_positions_and_types_are_said():
    op = Capture(point="z", tokens="masked", dtype=torch.float16)
    assert op.words() == "capture z on masked tokens as float16"
    assert op.to_json() == {
        "op": "capture",
        "point": "z",
        "layers": None,
        "tokens": "masked tokens",
        "dtype": "float16",
    }
    assert op.selection() == "masked" and not op.keeps_all and Capture(point="z").keeps_all
    with pytest.raises(ValueError, match="tokens='masked' on tiny-ar; expected a diffusion model"):
        op.check(AR)

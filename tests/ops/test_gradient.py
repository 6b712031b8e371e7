"""Gradient: its name in the record, and what it needs."""

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from dlens.metrics import log_prob
from dlens.ops.base.scope import Scope
from dlens.ops.gradient import Gradient
from tests.ops.targets import DIFFUSION
from tests.unchecked import unchecked


def spread(logits: Tensor, step: Any) -> Tensor:
    return logits[:, -1].std(-1)


def test_key_words_and_plan() -> None:
    op = Gradient(point="z", of=spread, layers=(0, 2), scope=Scope(range(2)))
    assert (op.key, op.words()) == ("z", "gradient of spread at z of layers 0, 2 at steps 0:2")
    assert op.to_json() == {"op": "gradient", "point": "z", "layers": [0, 2], "of": "spread", "steps": [0, 1]}
    assert Gradient(point="z", of=spread, layers=(2,), single=2).key == "blocks.2.attn.hook_z"
    assert Gradient(point="embed", of=log_prob(3)).words() == "gradient of log_prob at embed"


def test_it_keeps_a_gradient_and_changes_nothing() -> None:
    op = Gradient(point="z", of=spread)
    (touch,) = op.touches(DIFFUSION)
    assert (touch.point, touch.layers, touch.use) == ("z", (0, 1, 2, 3), "gradient")
    assert not op.changes(DIFFUSION)
    kept = op.keeps()
    assert (kept.where, kept.key) == ("record.gradients", "z")
    assert Gradient(point="embed", of=spread).touches(DIFFUSION)[0].layers == ()


def test_what_is_not_there_is_refused() -> None:
    Gradient(point="resid_post", of=spread).check(DIFFUSION)
    of: Any = "logit_difference"
    with (
        unchecked(),
        pytest.raises(ValueError, match="gradient of 'logit_difference'; expected a metric, f.logits, step"),
    ):
        Gradient(point="z", of=of).check(DIFFUSION)
    with pytest.raises(
        ValueError, match="gradient at ln2_scale, which is computed beside the forward; expected a point"
    ):
        Gradient(point="ln2_scale", of=spread).check(DIFFUSION)
    with pytest.raises(IndexError, match="layer 9 of tiny"):
        Gradient(point="z", of=spread, layers=(9,)).check(DIFFUSION)
    with pytest.raises(ValueError, match="tiny has no q: nobody named it"):
        Gradient(point="q", of=spread).check(replace(DIFFUSION, absent={"q": "nobody named it"}))

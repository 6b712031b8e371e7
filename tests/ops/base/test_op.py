"""Operations describe themselves: what they touch, what they change, and what is written of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dlens.measures import Cosine
from dlens.ops.ablate import Ablate, AblateOutlier
from dlens.ops.base.op import Op, Structure, Touch, snake_case
from dlens.ops.base.scope import Scope
from dlens.ops.capture import Capture
from dlens.ops.hook import Hook
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Skip
from dlens.ops.splice import Splice
from dlens.ops.steer import Steer
from dlens.ops.swap import Swap
from dlens.tracing.planning.measured import Measured
from tests.features.published import identity
from tests.ops.targets import DIFFUSION
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

ALL = (0, 1, 2, 3)
SAID: list[tuple[Op, tuple[Touch, ...], Structure]] = [
    (Skip(layers=(1, 2)), (), Structure(skips={1: "block", 2: "block"})),
    (Skip(layers=(3,), part="mlp"), (), Structure(skips={3: "mlp"})),
    (Swap(i=0, j=3), (), Structure(swaps=((0, 3),))),
    (Repeat(layer=2, times=3), (), Structure(runs={2: 3})),
    (Ablate(layers=(1,)), (Touch("resid_post", (1,), "write"),), Structure()),
    (AblateOutlier(), (Touch("resid_post", ALL, "write"),), Structure()),
    (Steer(vector=torch.ones(3), at="attn_out", layers=(0,)), (Touch("attn_out", (0,), "write"),), Structure()),
    (Splice(sae=identity(3), layers=(2,)), (Touch("resid_post", (2,), "write"),), Structure()),
    (Hook(fn=print, at="logits"), (Touch("logits", (), "write"),), Structure()),
    (Capture(point="z", layers=(2,)), (Touch("z", (2,), "keep"),), Structure()),
    (Capture(point="embed"), (Touch("embed", (), "keep"),), Structure()),
    (
        Measured(measure=Cosine()),
        (Touch("resid_pre", ALL, "measure"), Touch("resid_post", ALL, "measure")),
        Structure(),
    ),
]


@pytest.mark.parametrize(("op", "touches", "structure"), SAID, ids=lambda value: type(value).__name__)
def test_an_operation_says_what_it_does(op: Op, touches: tuple[Touch, ...], structure: Structure) -> None:
    assert set(op.touches(DIFFUSION)) == set(touches)
    assert op.structure(DIFFUSION) == structure
    reads = all(touch.use != "write" for touch in touches)
    assert op.changes(DIFFUSION) == (bool(structure) or not reads)


def test_a_structure_is_true_where_it_changes_something() -> None:
    assert not Structure()
    assert Structure(skips={0: "attn"}) and Structure(runs={0: 2}) and Structure(swaps=((0, 1),))


@dataclass(frozen=True, kw_only=True)
class LeaveOut(Op):
    """A block is left out."""

    layer: int

    def words(self) -> str:
        return f"leave out {self.layer}"


def test_what_is_written_of_an_operation_of_ones_own() -> None:
    op = LeaveOut(layer=3, scope=Scope(steps=range(2), noise=(0.5, 1.0)))
    assert op.to_json() == {"op": "leave_out", "steps": [0, 1], "noise": [0.5, 1.0]}
    assert (op.touches(DIFFUSION), op.structure(DIFFUSION), op.selection(), op.keeps()) == (
        (),
        Structure(),
        "all",
        None,
    )
    assert op.resolved(DIFFUSION) is op and not op.changes(DIFFUSION)


def test_names_of_classes_as_operations_are_called() -> None:
    assert [snake_case(name) for name in ("Skip", "AblateOutlier", "CKA2D")] == ["skip", "ablate_outlier", "cka2_d"]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_scope_says_when(wrong: Any) -> None:
    with unchecked():
        op = Skip(layers=(1,), scope=wrong)
        with pytest.raises(ValueError) as caught:
            op.check(DIFFUSION)
    assert_three_parts(str(caught.value), "scope=")

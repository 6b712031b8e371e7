"""Operations as planning sees them: checked, their layers counted from 0."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dlens.ops.base.op import Op, Structure, Touch
from dlens.ops.base.target import Target
from dlens.ops.capture import Capture
from dlens.ops.skip import Skip
from dlens.tracing.planning.described import describe

TARGET = Target("tiny", n_layers=4, d_model=3, has_noise=True)


@dataclass(frozen=True, kw_only=True)
class Ends(Op):
    """The last block is skipped, the one before runs twice, and two trade places, in numbers from the end."""

    def words(self) -> str:
        return "change the ends"

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch("resid_post", (-4, 1), "keep"),)

    def structure(self, target: Target) -> Structure:
        return Structure(skips={-1: "block"}, runs={-2: 2}, swaps=((-4, 1),))


def test_layers_are_counted_from_0() -> None:
    said = describe(Ends(), TARGET)
    assert said.structure == Structure(skips={3: "block"}, runs={2: 2}, swaps=((0, 1),))
    assert said.touches == (Touch("resid_post", (0, 1), "keep"),)
    assert not said.reads_only


def test_what_only_reads() -> None:
    assert describe(Capture(point="z"), TARGET).reads_only
    assert not describe(Skip(layers=(1,)), TARGET).reads_only


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(IndexError, match="layer 4 of tiny; expected -4 to 3"):
        describe(Skip(layers=(4,)), TARGET)

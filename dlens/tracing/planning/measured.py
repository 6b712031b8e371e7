"""A measure as an operation of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.axes import BLOCK_POINTS
from dlens.checks import quoted
from dlens.measures.base.measure import Measure
from dlens.ops.base.op import Kept, Op, Touch
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import Plan

__all__ = ["Measured", "measures_of"]


@final
@dataclass(frozen=True, kw_only=True)
class Measured(Op):
    """A measure in a chain of operations; it reads every layer.

    Args:
        measure: what is fed.
    """

    measure: Measure

    def check(self, target: Target) -> None:
        super().check(target)
        if not isinstance(self.measure.key, str) or not self.measure.key:
            raise ValueError(
                f"name={quoted(self.measure.key)} of {type(self.measure).__name__}; expected text, its key in the "
                f"record; leave name= out, or give a word"
            )
        for point in self.measure.points:
            if point not in BLOCK_POINTS:
                raise ValueError(
                    f"{self.measure.key} reads {point!r}; expected points of a block: {', '.join(BLOCK_POINTS)}; "
                    f"change its `points`"
                )
            target.require_point(point)

    @property
    def replays(self) -> bool:
        return self.measure.replays

    def touches(self, target: Target) -> tuple[Touch, ...]:
        everywhere = tuple(range(target.n_layers))
        return tuple(Touch(point, everywhere, "measure") for point in self.measure.points)

    def keeps(self) -> Kept:
        return Kept("record.measures", self.measure.key, "pass name= to one of them")

    def words(self) -> str:
        return f"measure {self.measure.key}"

    def to_json(self) -> dict[str, Any]:
        return {"op": "measure", "measure": type(self.measure).__name__, "key": self.measure.key}


def measures_of(plan: Plan) -> dict[int, Measure]:
    """Position in the chain -> measure, of all measures of a run."""
    return {planned.index: planned.op.measure for planned in plan.planned if isinstance(planned.op, Measured)}

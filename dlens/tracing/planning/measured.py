"""A measure as an operation of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.axes import BLOCK_POINTS
from dlens.measures.base.measure import Measure
from dlens.ops.op import Op, Target

__all__ = ["Measured"]


@final
@dataclass(frozen=True, kw_only=True)
class Measured(Op):
    """A measure in a chain of operations."""

    measure: Measure

    def check(self, target: Target) -> None:
        super().check(target)
        for point in self.measure.points:
            if point not in BLOCK_POINTS:
                raise ValueError(
                    f"{self.measure.key} reads {point!r}; expected points of a block: {', '.join(BLOCK_POINTS)}; "
                    f"change its `points`"
                )
            target.require_point(point)

    def words(self) -> str:
        return f"measure {self.measure.key}"

    def to_json(self) -> dict[str, Any]:
        return {"op": "measure", "measure": type(self.measure).__name__, "key": self.measure.key}

"""The gradient of a metric with respect to the values of a hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.axes import POINTS
from dlens.metrics import Metric
from dlens.ops.base.keep import Keep
from dlens.ops.base.op import Kept, Touch
from dlens.ops.base.target import Target

__all__ = ["Gradient"]


@final
@dataclass(frozen=True, kw_only=True)
class Gradient(Keep):
    """d metric / d value is kept in `record.gradients`, of the value as it is after the operations written before.

    Args:
        of: the metric, a function of a step's logits and the step that gives one number a row.
    """

    of: Metric

    def check(self, target: Target) -> None:
        super().check(target)
        if not callable(self.of):
            raise ValueError(
                f"gradient of {self.of!r}; expected a metric, f(logits, step) -> [batch]; pass one of dlens.metrics, "
                f"such as of=dlens.metrics.logit_difference(right, wrong)"
            )
        if not POINTS[self.point].writable:
            raise ValueError(
                f"gradient at {self.point}, which is computed beside the forward; expected a point that the forward "
                f"goes through; ask for what the norm reads"
            )

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch(self.point, self.places(target), "gradient"),)

    def keeps(self) -> Kept:
        return Kept("record.gradients", self.key, "name all layers and steps in one gradient")

    def words(self) -> str:
        return f"gradient of {self._name()} at {self.place_words()}"

    def details(self) -> dict[str, Any]:
        return super().details() | {"of": self._name()}

    def _name(self) -> str:
        return getattr(self.of, "__qualname__", repr(self.of)).split(".<locals>")[0]

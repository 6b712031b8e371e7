"""Keep the values of a hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.axes import POINTS, hook_name
from dlens.ops.base.op import Kept, Op, Touch
from dlens.ops.base.target import Target

__all__ = ["Capture"]


@final
@dataclass(frozen=True, kw_only=True)
class Capture(Op):
    """The tensors of a point are kept in the record, as they are after the operations written before.

    Args:
        point: hook point, short form.
        layers: places; None is every layer; unused for embed and logits.
        single: the layer where a full hook name asked for one, which drops the layer axis.
    """

    point: str
    layers: tuple[int, ...] | None = None
    single: int | None = None

    @property
    def key(self) -> str:
        """Its name in the record."""
        return self.point if self.single is None else hook_name(self.point, self.single)

    def check(self, target: Target) -> None:
        super().check(target)
        if POINTS[self.point].in_block:
            target.require_point(self.point)
            target.layers(self.layers)

    def places(self, target: Target) -> tuple[int, ...]:
        """The layers along its axis `layer`; none for a point outside of blocks."""
        return target.layers(self.layers) if POINTS[self.point].in_block else ()

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch(self.point, self.places(target), "keep"),)

    def keeps(self) -> Kept:
        return Kept("record", self.key, "name all layers and steps in one capture")

    def words(self) -> str:
        layers = "" if self.layers is None else f" of layers {', '.join(map(str, self.layers))}"
        return f"capture {self.point}{layers}{self.scope.words()}"

    def details(self) -> dict[str, Any]:
        return {"point": self.point, "layers": None if self.layers is None else list(self.layers)}

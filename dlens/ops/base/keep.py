"""What operations share that keep something of a hook point in the record: where, and under which name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from dlens.axes import POINTS, hook_name
from dlens.ops.base.op import Kept, Op
from dlens.ops.base.target import Target

__all__ = ["Keep"]


@dataclass(frozen=True, kw_only=True)
class Keep(Op):
    """An operation that keeps a tensor with the axes of a hook point.

    Args:
        point: hook point, short form.
        layers: places; None is every layer; unused outside of blocks.
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

    @abstractmethod
    def keeps(self) -> Kept:
        """The name that it takes in the record."""

    def place_words(self) -> str:
        """The point, its layers and the scope, in words."""
        layers = "" if self.layers is None else f" of layers {', '.join(map(str, self.layers))}"
        return f"{self.point}{layers}{self.scope.words()}"

    def details(self) -> dict[str, Any]:
        return {"point": self.point, "layers": None if self.layers is None else list(self.layers)}

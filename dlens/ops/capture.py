"""Keep the values of a hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.axes import BLOCK_POINTS, hook_name
from dlens.ops.op import Op, Target

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
        if self.point in BLOCK_POINTS:
            target.require_point(self.point)
            target.layers(self.layers)

    def words(self) -> str:
        layers = "" if self.layers is None else f" of layers {', '.join(map(str, self.layers))}"
        return f"capture {self.point}{layers}{self.scope.words()}"

    def to_json(self) -> dict[str, Any]:
        layers = None if self.layers is None else list(self.layers)
        return {"op": "capture", "point": self.point, "layers": layers} | self._scope_json()

"""Skip blocks, or their attention or MLP half, without computing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final, get_args

from dlens.axes import respell
from dlens.ops.op import Op, Target

__all__ = ["Part", "Skip"]

Part = Literal["block", "attn", "mlp"]


@final
@dataclass(frozen=True, kw_only=True)
class Skip(Op):
    """The block at each place returns its input; with `part`, only that half adds nothing.

    Args:
        layers: places that are skipped.
        part: "block", "attn" or "mlp".
    """

    layers: tuple[int, ...]
    part: Part = "block"

    def check(self, target: Target) -> None:
        super().check(target)
        if self.part not in get_args(Part):
            known = get_args(Part)
            raise ValueError(f"part={self.part!r}; expected one of {', '.join(known)}; {respell(self.part, known)}")
        if not self.layers:
            raise ValueError("skip got no layers; expected at least one; write for example .skip([3, 4, 5])")
        target.layers(self.layers)

    def words(self) -> str:
        what = "skip" if self.part == "block" else f"skip the {self.part} of"
        return f"{what} layers {', '.join(map(str, self.layers))}{self.scope.words()}"

    def to_json(self) -> dict[str, Any]:
        return {"op": "skip", "layers": list(self.layers), "part": self.part} | self._scope_json()

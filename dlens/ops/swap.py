"""Run two blocks in each other's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.ops.base.op import Op, Structure
from dlens.ops.base.target import Target

__all__ = ["Swap"]


@final
@dataclass(frozen=True, kw_only=True)
class Swap(Op):
    """The weights at place `i` and at place `j` trade places; several swaps compose left to right."""

    i: int
    j: int

    def check(self, target: Target) -> None:
        super().check(target)
        i, j = target.layer(self.i), target.layer(self.j)
        if i == j:
            raise ValueError(f"swap({self.i}, {self.j}) names one layer twice; expected two; give another layer")
        types = target.attention_types
        if types and types[i] != types[j]:
            raise ValueError(
                f"swap({self.i}, {self.j}): layer {i} has {types[i]} and layer {j} {types[j]}; expected blocks of "
                f"one attention type, as the model builds their masks by place; swap layers of the same type"
            )

    @property
    def replays(self) -> bool:
        return True

    def structure(self, target: Target) -> Structure:
        return Structure(swaps=((target.layer(self.i), target.layer(self.j)),))

    def words(self) -> str:
        return f"swap layers {self.i} and {self.j}{self.scope.words()}"

    def details(self) -> dict[str, Any]:
        return {"layers": [self.i, self.j]}

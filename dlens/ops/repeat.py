"""Run a block more than once in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.ops.base.op import Op, Structure
from dlens.ops.base.target import Target

__all__ = ["Repeat"]

_MOST = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class Repeat(Op):
    """The block at `layer` runs `times` times in a row, each time on what it returned before."""

    layer: int
    times: int = 2

    def check(self, target: Target) -> None:
        super().check(target)
        target.layer(self.layer)
        if self.times > _MOST:
            raise ValueError(
                f"repeat({self.layer}, times={self.times}); expected at most {_MOST}, as each is a run of the block; "
                f"give fewer"
            )
        if self.times < 2:
            raise ValueError(
                f"repeat({self.layer}, times={self.times}); expected at least 2, the number of runs in all; "
                f"use .skip([{self.layer}]) for none"
            )

    @property
    def replays(self) -> bool:
        return True

    def structure(self, target: Target) -> Structure:
        return Structure(runs={target.layer(self.layer): self.times})

    def words(self) -> str:
        return f"run layer {self.layer} {self.times} times{self.scope.words()}"

    def details(self) -> dict[str, Any]:
        return {"layers": [self.layer], "times": self.times}

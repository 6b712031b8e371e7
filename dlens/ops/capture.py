"""Keep the values of a hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from dlens.ops.base.keep import Keep
from dlens.ops.base.op import Kept, Touch
from dlens.ops.base.target import Target

__all__ = ["Capture"]


@final
@dataclass(frozen=True, kw_only=True)
class Capture(Keep):
    """The tensors of a point are kept in the record, as they are after the operations written before."""

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch(self.point, self.places(target), "keep"),)

    def keeps(self) -> Kept:
        return Kept("record", self.key, "name all layers and steps in one capture")

    def words(self) -> str:
        return f"capture {self.place_words()}"

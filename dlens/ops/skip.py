"""Skip blocks, or their attention or MLP half, without computing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final, get_args

from dlens.axes import Part
from dlens.checks import require_word
from dlens.ops.base.op import Op, Structure
from dlens.ops.base.target import Target

__all__ = ["Skip"]


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
        require_word("part", self.part, get_args(Part))
        if not self.layers:
            raise ValueError("skip got no layers; expected at least one; write for example .skip([3, 4, 5])")
        needed = [layer for layer in target.layers(self.layers) if layer in target.needed and self.part == "block"]
        if needed:
            why = target.needed[needed[0]]
            raise ValueError(
                f"'{self.words()}' on {target.name}: layer {needed[0]} cannot be left out, as {why}; layers whose "
                f"output is the stream alone; skip others, or ablate what this one adds"
            )
        if self.part in target.whole:
            raise ValueError(
                f"'{self.words()}' on {target.name}, whose layout names no {self.part}_skip; expected the modules that "
                f"do not run then; give the family a Layout with {self.part}_skip, or skip the whole block"
            )

    @property
    def replays(self) -> bool:
        return True

    def structure(self, target: Target) -> Structure:
        return Structure(skips={target.layer(layer): self.part for layer in self.layers})

    def words(self) -> str:
        what = "skip" if self.part == "block" else f"skip the {self.part} of"
        return f"{what} layers {', '.join(map(str, self.layers))}{self.scope.words()}"

    def details(self) -> dict[str, Any]:
        return {"layers": list(self.layers), "part": self.part}

"""Operations with what they say of themselves for one model, its layers counted from 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlens.ops.base.op import Op, Structure, Touch
from dlens.ops.base.target import Target

__all__ = ["Described", "describe"]


@dataclass(frozen=True)
class Described:
    """An operation, checked against a model.

    Args:
        op: the operation.
        touches: the hook points that it reads or writes.
        structure: what it changes of what is computed.
    """

    op: Op
    touches: tuple[Touch, ...]
    structure: Structure

    @property
    def reads_only(self) -> bool:
        """Whether the run computes the same without it."""
        return not self.structure and not any(touch.use == "write" for touch in self.touches)


def describe(op: Op, target: Target) -> Described:
    """Check an operation and ask it what it does.

    Raises:
        ValueError, IndexError: the model cannot do it.
    """
    op.check(target)
    said = op.structure(target)
    structure = Structure(
        skips={target.layer(layer): part for layer, part in said.skips.items()},
        runs={target.layer(layer): times for layer, times in said.runs.items()},
        swaps=tuple((target.layer(i), target.layer(j)) for i, j in said.swaps),
    )
    touches = tuple(replace(touch, layers=target.layers(touch.layers)) for touch in op.touches(target))
    return Described(op, touches, structure)

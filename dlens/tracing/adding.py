"""What verbs share: how they read their arguments, and how an operation is added."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dlens.axes import POINTS, SPELLINGS, STREAM_POINTS, WRITABLE_POINTS, parse_point
from dlens.checks import require_word
from dlens.models.model import Model
from dlens.ops.base.given import Indices, as_indices
from dlens.ops.base.op import Op
from dlens.ops.base.scope import Scope, StepSpec
from dlens.ops.base.target import Target
from dlens.ops.base.tokens import as_tokens
from dlens.tracing.planning.contradictions import refuse_contradictions

__all__ = ["Adding", "Chain", "Noise"]

Noise = tuple[float, float] | None
Chain = TypeVar("Chain", bound="Adding")


@dataclass(frozen=True, eq=False)
class Adding(ABC):
    """A chain of operations on a model that more can be added to."""

    model: Model
    target: Target
    ops: tuple[Op, ...] = ()

    def _with(self: Chain, op: Op) -> Chain:
        """The chain with one more operation, where that contradicts no other."""
        ops = (*self.ops, op)
        refuse_contradictions(ops, self.target)
        return replace(self, ops=ops)

    def _edit(
        self,
        at: str,
        layers: Indices,
        tokens: Any,
        steps: StepSpec,
        noise: Noise,
        heads: Indices = None,
        points: tuple[str, ...] = WRITABLE_POINTS,
    ) -> dict[str, Any]:
        """The fields that all operations that write values share."""
        at = SPELLINGS.get(at, at) if isinstance(at, str) else at
        where = "of the residual stream" if points is STREAM_POINTS else "in the blocks"
        require_word("at", at, points, f"a point {where}, with its layers in layers=: {', '.join(points)}")
        places = self.target.places(layers)
        named = None if heads is None else self._heads(at, heads)
        return {"at": at, "layers": places, "tokens": as_tokens(tokens), "scope": Scope(steps, noise), "heads": named}

    def _heads(self, point: str, heads: Indices) -> tuple[int, ...] | None:
        """Heads as a user names them; negative numbers count from the end."""
        count = self.target.heads(point)
        named = as_indices(heads, "head", count) or ()
        for head in named:
            if not -count <= head < count:
                raise IndexError(
                    f"head {head} at {point} of {self.target.name}; expected {-count} to {count - 1}; give a smaller "
                    f"number"
                )
        return tuple(dict.fromkeys(head % count for head in named))

    def _keep(self, name: str, layers: Indices) -> dict[str, Any]:
        """The fields that all operations that keep a tensor share."""
        single = parse_point(name).layer
        point, places = self._point(name, layers)
        return {"point": point, "layers": places, "single": None if single is None else self.target.layer(single)}

    def _point(self, name: str, layers: Indices) -> tuple[str, tuple[int, ...] | None]:
        """A hook point, and its places where some are named."""
        point = parse_point(name)
        if layers is not None and (point.layer is not None or not POINTS[point.point].in_block):
            raise ValueError(
                f"layers={layers!r} with {name!r}, which is one place; expected layers only with a short form of a "
                f"point in the blocks; leave layers= out, or give the two in calls of their own"
            )
        return point.point, self.target.places(point.layer if layers is None else layers)

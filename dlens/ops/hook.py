"""Call a user's function at a hook point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from dlens.axes import BLOCK_POINTS, ROOT_POINTS, TokenMask, hook_name
from dlens.ops.op import Edit, Place

__all__ = ["Hook", "HookPoint"]


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is told.

    Args:
        name: full hook name.
        layer: its layer, None for embed and logits.
        step: current step.
        noise: per row the share of masked positions, None for AR models.
        masked: [batch, position], which positions are masks at the start of the step.
    """

    name: str
    layer: int | None
    step: int
    noise: tuple[float, ...] | None
    masked: TokenMask


@final
@dataclass(frozen=True, kw_only=True)
class Hook(Edit):
    """`fn(value, hook)` sees the value and returns a new one, or None to leave it.

    The function gets a copy, so it may keep it; a copy edited in place counts as returned.
    """

    fn: Callable[[Tensor, HookPoint], Tensor | None]

    def check(self, target: Any) -> None:
        if self.at not in (*BLOCK_POINTS, *ROOT_POINTS):
            raise AssertionError(self.at)
        super().check(target)

    def edit(self, value: Tensor, place: Place) -> Tensor:
        name = hook_name(place.point, place.layer)
        copy = value.detach().clone()
        version = copy._version
        hook = HookPoint(name, place.layer, place.step, place.noise, place.masked)
        new = self.fn(copy, hook)
        if new is None:
            return value if copy._version == version else copy
        if not isinstance(new, Tensor) or new.shape != value.shape:
            came = f"shape {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"the hook at {name} returned {came}; expected None or a tensor of shape {tuple(value.shape)}; "
                f"return the edited value"
            )
        return new.to(value)

    def words(self) -> str:
        return f"call {getattr(self.fn, '__qualname__', repr(self.fn))} at {self._where()}"

    def to_json(self) -> dict[str, Any]:
        return {"op": "hook", "fn": getattr(self.fn, "__qualname__", repr(self.fn))} | self._edit_json()

"""Call a user's function at a hook point."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import POINTS, TokenMask, hook_name
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.target import Target

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

    Examples:
        >>> import dlens
        >>> def look(value, hook):
        ...     print(hook.name, hook.layer, hook.step, hook.noise, tuple(hook.masked.shape), tuple(value.shape))
        >>> record = dlens.trace("trio/diffusion").hook("resid_post", look, layers=3).generate("Once upon a time", 2)
        blocks.3.hook_resid_post 3 0 (1.0,) (1, 6) (1, 6, 192)
        blocks.3.hook_resid_post 3 1 (0.5,) (1, 6) (1, 6, 192)
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

    The function gets a copy, so it may keep it; a copy edited in place counts as returned. At the scales of norms it
    may only read.
    """

    fn: Callable[[Tensor, HookPoint], Tensor | None]

    def check(self, target: Target) -> None:
        if not callable(self.fn):
            raise ValueError(
                f"the hook at {self.at} is {self.fn!r}; expected a function of (value, hook); "
                f"pass one that returns the new value, or None to leave it"
            )
        self._check_arguments()
        super().check(target)

    def _check_arguments(self) -> None:
        try:
            signature = inspect.signature(self.fn)
        except (TypeError, ValueError):
            # Some builtins have none; what they take shows when they are called.
            return
        try:
            signature.bind(None, None)
        except TypeError as error:
            raise ValueError(
                f"the hook {self._name()} at {self.at} takes {signature}; expected a function that can be called as "
                f"fn(value, hook); give it two arguments ({error})"
            ) from None

    def edit(self, value: Tensor, place: Place) -> Tensor:
        name = hook_name(place.point, place.layer)
        copy = value.clone()
        hook = HookPoint(name, place.layer, place.step, place.noise, place.masked)
        try:
            new = self.fn(copy, hook)
        except Exception as error:
            error.add_note(f"in the hook {self._name()} at {name}, step {place.step}, called as fn(value, hook)")
            raise
        if new is None:
            new = copy
        if not isinstance(new, Tensor) or new.shape != value.shape or new.is_complex():
            came = f"shape {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            came = "complex numbers" if isinstance(new, Tensor) and new.is_complex() else came
            raise ValueError(
                f"the hook at {name} returned {came}; expected None or a tensor of shape {tuple(value.shape)} and of "
                f"real numbers; return the edited value"
            )
        new = new.to(value)
        if torch.allclose(new, value, rtol=0, atol=0, equal_nan=True):
            return value
        if not POINTS[place.point].writable:
            raise ValueError(
                f"the hook at {name} changed the {place.point}; expected one that only reads, as the {place.point} is "
                f"computed beside the forward; edit what the norm reads instead"
            )
        return new

    def _name(self) -> str:
        return getattr(self.fn, "__qualname__", repr(self.fn))

    def words(self) -> str:
        return f"call {self._name()} at {self.where()}"

    def details(self) -> dict[str, Any]:
        return {"fn": self._name()}

"""Add a vector to the stream, or to another hook point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from dlens.axes import POINTS, TokenMask
from dlens.checks import several
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import as_number, as_tensor
from dlens.ops.base.target import RunShape, Target

__all__ = ["Scale", "Steer", "as_scale", "as_vector"]

Scale = float | Sequence[float] | Tensor | np.ndarray
"""One factor, or one for each planned step."""


def as_scale(scale: Any) -> float | tuple[float, ...]:
    """One factor, or one for each planned step, as a user writes it.

    Raises:
        ValueError: something that is no finite number.

    Examples:
        >>> as_scale(2), as_scale([2, 0])
        (2.0, (2.0, 0.0))
    """
    if several(scale) and len(scale) > 0:
        return tuple(as_number(each, "scale") for each in scale)
    return as_number(scale, "scale")


def as_vector(vector: Any, layers: Any) -> Tensor:
    """The vector as a tensor of its own.

    Raises:
        ValueError: it holds no numbers, or it was swapped with the layers.
    """
    kept = as_tensor(vector, "vector")
    swapped = isinstance(layers, Tensor) and layers.is_floating_point() and not kept.is_floating_point()
    if kept.ndim == 0 or swapped:
        raise ValueError(
            f"steer got {vector!r} for its vector; expected a tensor [d_model], or [layer, d_model]; "
            f"the order is steer(vector, layers)"
        )
    return kept


@final
@dataclass(frozen=True, kw_only=True)
class Steer(Edit):
    """`scale * vector` is added, not normalised.

    Args:
        vector: [d_model] (the last axis of the point), or [layer, d_model] with a row for each of the `layers`
            named (for each layer of the model where none are named).
        scale: factor, or one for each planned step.
    """

    vector: Tensor
    scale: float | tuple[float, ...] = 1.0

    def check(self, target: Target) -> None:
        super().check(target)
        as_scale(self.scale)
        shape = tuple(as_tensor(self.vector, "vector").shape)
        if "position_b" in POINTS[self.at].axes:
            raise ValueError(
                f"steer at {self.at}, whose last axis is the keys of the run; expected a point with channels, such as "
                f"q, k, v or z; name one of these, or write the {self.at} with .hook"
            )
        n_rows, width = len(self._rows(target.n_layers)), target.width(self.at, self.layers)
        if width is not None and shape not in ((width,), (n_rows, width)):
            raise ValueError(
                f"the steering vector has shape {shape}; expected [{width}] or "
                f"[{n_rows}, {width}] (a row for each layer steered); reshape it or name its layers"
            )

    def check_run(self, shape: RunShape, steps: frozenset[int], real: TokenMask) -> None:
        if isinstance(self.scale, tuple) and len(self.scale) != shape.n_steps:
            raise ValueError(
                f"scale has {len(self.scale)} numbers for a run of {shape.n_steps} planned steps; expected one for "
                f"each; plan the schedule for {shape.n_steps} steps, or give one number"
            )

    def _rows(self, n_layers: int) -> tuple[int, ...]:
        return tuple(range(n_layers)) if self.layers is None else self.layers

    @property
    def replays(self) -> bool:
        return True

    def edit(self, value: Tensor, place: Place) -> Tensor:
        vector = self.vector
        if vector.ndim == 2:
            assert place.layer is not None
            rows = self._rows(len(vector))
            vector = vector[rows.index(place.layer)]
        scale = self.scale[place.step] if isinstance(self.scale, tuple) else self.scale
        return value + scale * vector.to(value)

    def words(self) -> str:
        if isinstance(self.scale, tuple):
            scale = f"{min(self.scale):g} to {max(self.scale):g} (by step)"
        else:
            scale = f"{self.scale:g}"
        return f"add {scale} x a vector {list(self.vector.shape)} to {self.where()}"

    def details(self) -> dict[str, Any]:
        scale = list(self.scale) if isinstance(self.scale, tuple) else self.scale
        return {"scale": scale, "shape": list(self.vector.shape)}

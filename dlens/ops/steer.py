"""Add a vector to the stream, or to another hook point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from dlens.axes import POINTS
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import as_number, as_tensor
from dlens.ops.base.target import Target

__all__ = ["Steer", "as_vector"]


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
        scale: factor.
    """

    vector: Tensor
    scale: float = 1.0

    def check(self, target: Target) -> None:
        super().check(target)
        as_number(self.scale, "scale")
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
        return value + self.scale * vector.to(value)

    def words(self) -> str:
        return f"add {self.scale:g} x a vector {list(self.vector.shape)} to {self.where()}"

    def details(self) -> dict[str, Any]:
        return {"scale": self.scale, "shape": list(self.vector.shape)}

"""The facts of a model and of a run that operations are checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, SupportsIndex

from dlens.axes import BLOCK_POINTS, Part
from dlens.ops.base.given import Indices, as_index, as_indices, as_ints

__all__ = ["RunKind", "RunShape", "Target"]

RunKind = Literal["forward", "denoising", "decoding"]


@dataclass(frozen=True)
class RunShape:
    """The size of a run, known before it starts.

    Args:
        kind: a forward, a denoising run, or AR decoding.
        n_steps: planned steps.
        batch: rows.
        width: positions that are computed: for AR decoding one less than there are tokens.
        prompt_width: positions of the prompts.
    """

    kind: RunKind
    n_steps: int
    batch: int
    width: int
    prompt_width: int


@dataclass(frozen=True)
class Target:
    """The facts of a model that an operation is checked against.

    Args:
        name: how messages call the model.
        n_layers, d_model: its size.
        has_noise: whether the noise level is defined (diffusion).
        absent: hook point -> why this model does not have it.
        attention_types: per layer the kind of attention ("full", "sliding", ...).
        whole: halves of a block that cannot be skipped alone, as no module of theirs is named.

    Examples:
        >>> import dlens
        >>> target = dlens.trace("trio/ar").target
        >>> target.layer(-1), target.layers([3, -1]), target.places(slice(-2, None))
        (15, (3, 15), (14, 15))
        >>> target.require_point("z")
    """

    name: str
    n_layers: int
    d_model: int
    has_noise: bool
    absent: Mapping[str, str] = field(default_factory=dict)
    attention_types: tuple[str, ...] = ()
    whole: tuple[Part, ...] = ()

    def layer(self, layer: SupportsIndex) -> int:
        """The place a layer number names; negative numbers count from the end.

        Raises:
            IndexError: no such layer.
            ValueError: not a whole number.
        """
        layer = as_index(layer, "layer")
        if not -self.n_layers <= layer < self.n_layers:
            raise IndexError(
                f"layer {layer} of {self.name}; expected {-self.n_layers} to {self.n_layers - 1}, "
                f"as it has {self.n_layers} layers counted from 0; give a smaller number"
            )
        return layer % self.n_layers

    def layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """The places that layer numbers name, in order; None names all."""
        if layers is None:
            return tuple(range(self.n_layers))
        return tuple(sorted({self.layer(layer) for layer in as_ints(layers, "layer")}))

    def places(self, layers: Indices) -> tuple[int, ...] | None:
        """The places that a user names, each once, in the order named; None stays None.

        Raises:
            ValueError, IndexError: no layer at all, no such layer, or not a whole number.
        """
        named = as_indices(layers, "layer", self.n_layers)
        return None if named is None else tuple(dict.fromkeys(self.layer(layer) for layer in named))

    def require_point(self, point: str) -> None:
        """Refuse a point that this architecture does not have.

        Raises:
            ValueError: says why it is absent.
        """
        if point in self.absent:
            raise ValueError(
                f"{self.name} has no {point}: {self.absent[point]}; expected one of "
                f"{', '.join(p for p in BLOCK_POINTS if p not in self.absent)}; use one of these"
            )

"""The facts of a model and of a run that operations are checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, SupportsIndex

from dlens.axes import BLOCK_POINTS, POINTS, Part
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
        filler: how many of the last positions fill up canvas blocks beyond what was asked for; no record holds them.
    """

    kind: RunKind
    n_steps: int
    batch: int
    width: int
    prompt_width: int
    filler: int = 0


@dataclass(frozen=True)
class Target:
    """The facts of a model that an operation is checked against.

    Args:
        name: how messages call the model.
        n_layers, d_model: its size.
        n_heads, n_kv_heads: heads of queries, and of keys and values, of a block.
        has_noise: whether the noise level is defined (diffusion).
        absent: hook point -> why this model does not have it.
        attention_types: per layer the kind of attention ("full", "sliding", ...).
        whole: halves of a block that cannot be skipped alone, as no module of theirs is named.
        hands_on: whether decoding keeps states that a skipped block would leave out: those that blocks hand on to
            each other, as in RWKV, or a cache of the model's own kind.
        needed: layer that cannot be skipped -> why.
        widths: hook point within a half -> the size of its last axis at each layer, where it was seen.

    Examples:
        >>> import dlens
        >>> target = dlens.trace("trio/ar").target
        >>> target.layer(-1), target.layers([3, -1]), target.places(slice(-2, None))
        (15, (3, 15), (14, 15))
        >>> target.require_point("z")
        >>> target.width("resid_post"), target.width("z"), target.width("mlp_post", [3]), target.heads("z")
        (192, 64, 512, 3)
    """

    name: str
    n_layers: int
    d_model: int
    has_noise: bool
    n_heads: int = 1
    n_kv_heads: int = 1
    absent: Mapping[str, str] = field(default_factory=dict)
    attention_types: tuple[str, ...] = ()
    whole: tuple[Part, ...] = ()
    hands_on: bool = False
    needed: Mapping[int, str] = field(default_factory=dict)
    # What was seen of a model by now does not make it another one.
    widths: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)

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

    def heads(self, point: str) -> int:
        """How many heads a point has.

        Raises:
            ValueError: none.
        """
        axis = POINTS[point].head_axis
        if axis is None:
            known = ", ".join(name for name, one in POINTS.items() if one.head_axis and name not in self.absent)
            raise ValueError(
                f"heads= at {point}, whose axes are {', '.join(POINTS[point].axes)}; expected a point with heads: "
                f"{known}; name one of these with at=, or leave heads= out"
            )
        return self.n_heads if axis == "head" else self.n_kv_heads

    def width(self, point: str, layers: Sequence[int] | None = None) -> int | None:
        """The size of a point's last axis at some layers; None where it is not known before a run.

        Raises:
            ValueError: the layers have unlike sizes.
        """
        axis = POINTS[point].axes[-1]
        if axis in ("d_model", "scale"):
            return self.d_model if axis == "d_model" else 1
        if point not in self.widths:
            return None
        found = {self.widths[point][layer] for layer in self.layers(layers)}
        if len(found) > 1:
            raise ValueError(
                f"{point} of {self.name} has widths {sorted(found)} at layers {list(self.layers(layers))}; expected "
                f"one width; name layers of one width, in calls of their own"
            )
        return found.pop()

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

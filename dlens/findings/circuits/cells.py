"""The cells that scores stand for: a layer, and a position, head or neuron of a hook point there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from dlens.axes import POINTS
from dlens.checks import quoted, require_word
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import Indices
from dlens.ops.base.target import Target

__all__ = ["AT", "Blend", "Cells", "PatchCells", "cells_of"]

# Scores before the softmax hold the smallest number or minus infinity at hidden keys, whose difference is no number.
AT = tuple(name for name, point in POINTS.items() if point.writable and name not in ("attn_scores", "logits"))
"""The points that can be asked about."""

_NAMES = {"d_mlp": "neuron"}
_OFFERED = ("position", "position_b", "head", "kv_head", "d_mlp")


@final
@dataclass(frozen=True)
class Cells:
    """What scores are of: the axes of a point that stay; values are summed or exchanged over the others.

    Args:
        at: hook point.
        by: names of the axes that stay, "layer" first where the point has layers.
        layers: the places; empty outside of blocks.
    """

    at: str
    by: tuple[str, ...]
    layers: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes of the point's values, named as in `by`, with "pair" for its rows."""
        own = tuple("pair" if axis == "batch" else _NAMES.get(axis, axis) for axis in POINTS[self.at].axes)
        return ("layer", *own) if POINTS[self.at].in_block else own

    def summed(self, values: Tensor) -> Float[Tensor, "pair ..."]:
        """Values of the point, summed over the axes that do not stay."""
        return reduce(values, f"{' '.join(self.axes)} -> {' '.join(('pair', *self.by))}", "sum")

    def differing(self, values: Tensor, others: Tensor) -> list[tuple[int, ...]]:
        """The cells in which two runs differ in any pair, as indices along `by`."""
        differs = reduce((values != others).float(), f"{' '.join(self.axes)} -> {' '.join(self.by)}", "max")
        return [tuple(cell) for cell in differs.nonzero().tolist()]


def cells_of(target: Target, at: Any, layers: Indices = None, by: Sequence[str] | None = None) -> Cells:
    """The cells that a user names.

    Args:
        target: facts of the model.
        at: hook point.
        layers: places; None is all.
        by: the axes that stay; None is the layer and the position, or the head or neuron where the point has any.

    Raises:
        ValueError, IndexError: a point that cannot be asked about, layers it has not, or axes that it lacks.

    Examples:
        >>> import dlens
        >>> target = dlens.trace("trio/ar").target
        >>> cells_of(target, "resid_post").by, cells_of(target, "v", layers=[3]).by, cells_of(target, "mlp_post").by
        (('layer', 'position'), ('layer', 'kv_head'), ('layer', 'neuron'))
    """
    require_word("at", at, AT, f"a hook point that is written: {', '.join(AT)}")
    point = POINTS[at]
    if not point.in_block and layers is not None:
        raise ValueError(f"layers={quoted(layers)} at {at}, which has none; expected no layers; leave layers= out")
    if point.in_block:
        target.require_point(at)
    places = target.places(layers) if layers is not None else None
    where = target.layers(places) if point.in_block else ()
    known = tuple(_NAMES.get(axis, axis) for axis in _OFFERED if axis in point.axes)
    return Cells(at, _kept(at, by, known, point.in_block), where)


def _kept(at: str, by: Any, known: tuple[str, ...], in_block: bool) -> tuple[str, ...]:
    first = ("layer",) if in_block else ()
    if by is None:
        own = next((axis for axis in known if not axis.startswith("position")), "position")
        return (*first, own)
    listed = [by] if isinstance(by, str) else by
    named = tuple(listed) if isinstance(listed, Sequence) else ()
    allowed = (*first, *known)
    if not named or not set(named) <= set(allowed) or not set(first) <= set(named) or len(set(named)) < len(named):
        raise ValueError(
            f"by={quoted(by)} at {at}; expected some of {', '.join(allowed)}, each once"
            f"{', with layer, as each is a place of its own' if in_block else ''}; name the axes that stay, such as "
            f"by={(*first, known[0])}"
        )
    return tuple(sorted(named, key=allowed.index))


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PatchCells(Edit):
    """Each row takes the values of another run in a cell of its own.

    Args:
        cells: what the scores are of.
        which: of each group of rows its cell, as indices along `cells.by`; a group has a row for every pair.
        source: the other run's values, with the axes `cells.axes`.
    """

    cells: Cells
    which: tuple[tuple[int, ...], ...]
    source: Tensor

    def edit(self, value: Tensor, place: Place) -> Tensor:
        edited = value.clone()
        batch = POINTS[self.at].axes.index("batch")
        source = self.source if place.layer is None else self.source[self.cells.layers.index(place.layer)]
        n_pairs = source.shape[batch]
        for number, row in enumerate(place.rows):
            cell = dict(zip(self.cells.by, self.which[row // n_pairs], strict=True))
            if place.layer is None or self.cells.layers[cell["layer"]] == place.layer:
                self._exchange(edited.select(batch, number), source.select(batch, row % n_pairs), cell, place)
        return edited

    def _exchange(self, own: Tensor, other: Tensor, cell: dict[str, int], place: Place) -> None:
        """Write the other run's values into one row, which holds the columns that its window computes."""
        here, there = [], []
        for axis in self.cells.axes:
            if axis in ("pair", "layer"):
                continue
            moved = place.columns.start if axis.startswith("position") else 0
            index = cell.get(axis)
            if index is not None and index < moved:
                return
            here.append(slice(None) if index is None else slice(index - moved, index - moved + 1))
            there.append(slice(moved, None) if index is None else slice(index, index + 1))
        own[tuple(here)] = other[tuple(there)].to(own)

    def words(self) -> str:
        return f"exchange {len(self.which)} cells of {self.where()} for those of another run"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Blend(Edit):
    """The embedding is mixed with that of another text.

    Args:
        source: [batch, position, d_model] of the other text.
        share: how much of its own stays; 1 is all.
    """

    source: Tensor
    share: float
    at: str = "embed"

    def edit(self, value: Tensor, place: Place) -> Tensor:
        other = self.source[list(place.rows)][:, place.columns].to(value)
        return torch.lerp(other, value, self.share)

    def words(self) -> str:
        return f"keep {self.share:.0%} of {self.where()}, the rest from another text"

"""Where the rows of a stream come from: prompt, step, position, and what stood there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

__all__ = ["Places", "Rows", "joined", "picked", "rows_of"]


@final
@dataclass(frozen=True, eq=False)
class Places:
    """Positions at steps; each has a row at every layer that a stream keeps.

    Args:
        prompt: number of the prompt, in the order given.
        step: at which step of its run.
        position: counted from the prompt's first real token.
        token: id of what stood there when the step began.
        state: 0 prompt, 1 masked, 2 decoded.
        noise: share of masked positions of its row; NaN for AR models.
    """

    prompt: Int[Tensor, " place"]
    step: Int[Tensor, " place"]
    position: Int[Tensor, " place"]
    token: Int[Tensor, " place"]
    state: Int[Tensor, " place"]
    noise: Float64[Tensor, " place"]

    def __len__(self) -> int:
        return len(self.prompt)

    def columns(self) -> dict[str, Tensor]:
        """Each by its name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def at(self, index: Int[Tensor, " chosen"] | Bool[Tensor, " place"]) -> Places:
        """Some of them."""
        return Places(**{name: column[index] for name, column in self.columns().items()})

    @staticmethod
    def joined(parts: Sequence[Places]) -> Places:
        """All of several, one after the other."""
        return Places(**_joined(parts))


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a stream, each with where it comes from.

    Args:
        values: what was captured.
        layer: of which layer; -1 for a point outside of blocks.
        prompt, step, position, token, state, noise: as of `Activations`.

    Examples:
        >>> import dlens, tempfile
        >>> trace = dlens.trace("trio/ar").capture("resid_post", layers=[3, 8])
        >>> rows = trace.stream(["Once upon a time", "The dog"], tempfile.mkdtemp() + "/kept").read()
        >>> rows.values.shape, rows.layer.tolist(), rows.position.tolist()[:4], len(rows)
        (torch.Size([12, 192]), [3, 3, 3, 3, 3, 3, 8, 8, 8, 8, 8, 8], [0, 1, 2, 3], 12)
        >>> rows.at(rows.layer == 8).values.shape
        torch.Size([6, 192])
    """

    values: Float[Tensor, "row ..."]
    layer: Int[Tensor, " row"]
    prompt: Int[Tensor, " row"]
    step: Int[Tensor, " row"]
    position: Int[Tensor, " row"]
    token: Int[Tensor, " row"]
    state: Int[Tensor, " row"]
    noise: Float64[Tensor, " row"]

    def __len__(self) -> int:
        return len(self.prompt)

    def at(self, index: slice | Int[Tensor, " chosen"] | Bool[Tensor, " row"]) -> Rows:
        """Some of them, by their numbers or a mask."""
        return Rows(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


def rows_of(values: Tensor, layer: int, places: Places) -> Rows:
    """The rows of one layer."""
    return Rows(values, torch.full_like(places.prompt, layer), **places.columns())


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of several parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(**_joined(parts))


def picked(parts: Sequence[Rows], index: Int[Tensor, " chosen"]) -> Rows:
    """Some rows of several parts, in the order asked for, without joining the parts.

    Args:
        parts: the rows.
        index: numbers of rows, counted on from each part to the next.
    """
    sizes = torch.tensor([len(part) for part in parts])
    part_of = torch.searchsorted(sizes.cumsum(0), index, right=True)
    order = part_of.argsort(stable=True)
    within = (index - (sizes.cumsum(0) - sizes)[part_of])[order]
    places = within.split(part_of.bincount(minlength=len(parts)).tolist())
    chosen = [part.at(place) for part, place in zip(parts, places, strict=True) if len(place)]
    return joined(chosen).at(order.argsort())


def _joined(parts: Sequence[Places] | Sequence[Rows]) -> dict[str, Tensor]:
    """Each column of several, one after the other, by its name."""
    return {each.name: torch.cat([getattr(part, each.name) for part in parts]) for each in fields(parts[0])}

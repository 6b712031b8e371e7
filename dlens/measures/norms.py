"""How long the stream is, and how much each block adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from dlens.measures.base.arrays import acted, check_channels, labelled, rows, wide
from dlens.measures.base.cells import add_by_cell, mean_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Norms"]


@final
@dataclass(frozen=True, kw_only=True)
class Norms(Measure):
    """Length of what leaves each block, and of what the block added relative to what entered it.

    The dataset holds, over step, noise (where it is defined), state and layer: "norm", the mean over
    positions of |resid_post|; "rms", the root of the mean square over positions and channels of
    resid_post; "change", the mean over positions of |resid_post - resid_pre| / |resid_pre|, NaN where the
    block did not act; "n", the number of positions, and "n_acted", those at which the block acted.
    All in float32 or wider.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "norms" by default.

    Examples:
        >>> Norms().key
        'norms'
    """

    drop: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", tuple(self.drop))

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_pre", "resid_post")

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        shape = (span.n_steps, span.n_cells, span.n_layers)
        keys = ("norm", "square", "change", "n", "n_acted")
        return {key: torch.zeros(shape, dtype=torch.float64, device=span.device) for key in keys}

    def update(self, sums: Sums, visit: Visit) -> None:
        pre, post = (wide(rows(visit.values[point], self.drop)) for point in self.points)
        where = acted(visit)
        norm = torch.linalg.vector_norm(post, dim=-1).double()
        change = torch.linalg.vector_norm(post - pre, dim=-1).double() / torch.linalg.vector_norm(pre, dim=-1)
        some = torch.ones_like(norm) if where is None else where.to(norm)
        change = change if where is None else torch.where(where, change, 0)
        cell = visit.cells.cell.flatten()
        parts = {"norm": norm, "square": norm.square(), "change": change, "n": torch.ones_like(norm), "n_acted": some}
        for key, values in parts.items():
            add_by_cell(sums[key][visit.step, :, visit.at], values, cell)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        dims = ("step", *span.cell_dims, "layer")
        split = {key: span.split_cells(value.cpu(), axis=1) for key, value in sums.items()}
        n, n_acted = split["n"], split["n_acted"]
        width = span.d_model - len(set(self.drop))
        return labelled(
            {
                "norm": (dims, mean_of(split["norm"], n)),
                "rms": (dims, mean_of(split["square"], n * width).sqrt()),
                "change": (dims, mean_of(split["change"], n_acted)),
                "n": (dims, n.long()),
                "n_acted": (dims, n_acted.long()),
            },
            span,
            estimator="norm = mean |resid_post|; rms = root of the mean square over positions and channels; "
            "change = mean |resid_post - resid_pre| / |resid_pre|",
            pooling="over positions; a position counts once a step",
            positions="all but padding and what follows the end of a row; change: where the block acted",
            channels_left_out=list(self.drop),
            count_of_change="n_acted",
            n=int(sums["n"].sum((0, 1)).max()),
        )

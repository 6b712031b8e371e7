"""How little a block changes the direction of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.measures.base.arrays import acted, check_channels, fused, labelled, rows, scratch, wide_dtype
from dlens.measures.base.cells import add_by_cell
from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Cosine"]


def row_cosine(
    a: Float[Tensor, "*rows d_model"],
    b: Float[Tensor, "*rows d_model"],
    work: Float[Tensor, "*rows d_model"] | None = None,
) -> Float[Tensor, "*rows"]:
    """Cosine of each row of `a` with the same row of `b`, in float32 or wider; 0 where one is zero.

    Args:
        a, b: rows.
        work: memory to write over, of the type of `wide(b)`; None takes its own.
    """
    dtype = wide_dtype(b)
    work = torch.empty(b.shape, dtype=dtype, device=b.device) if work is None else work
    dot = work.copy_(b).mul_(a).sum(-1)
    norms = torch.linalg.vector_norm(a, dim=-1, dtype=dtype) * torch.linalg.vector_norm(b, dim=-1, dtype=dtype)
    return dot / norms.clamp_min_(torch.finfo(dtype).tiny)


@final
@dataclass(frozen=True, kw_only=True)
class Cosine(Measure):
    """Cosine of what enters a block with what leaves it, per token, averaged over positions.

    cos(resid_pre, resid_post) at layer l, in float32 or wider: 1 minus the Block Influence of
    ShortGPT (arXiv 2403.03853). A high value says that the block turns the stream little; one
    very large channel can lift it, which `drop` shows. Where a block is skipped it is NaN.

    The dataset holds "cosine" and "n", the number of positions, over step, noise (where it is
    defined), state and layer.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "cosine" by default.

    Examples:
        >>> Cosine().key, Cosine(drop=[3848], name="cosine_without_3848").drop
        ('cosine', (3848,))
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
        return {key: torch.zeros(shape, dtype=torch.float64, device=span.device) for key in ("cosine", "n")}

    def update(self, sums: Sums, visit: Visit) -> None:
        pre, post = (rows(visit.values[point], self.drop) for point in self.points)
        cells, where = visit.cells, acted(visit)
        cosines, counts = (sums[key][visit.step, :, visit.at] for key in ("cosine", "n"))
        if (kernels := fused(pre, counts)) is not None:
            kernels.add_cosine(pre, post, cells.state, cells.noise, where, cosines, counts)
            return
        cosine = row_cosine(pre, post, scratch(visit, "stream", post.shape, wide_dtype(post)))
        counted = torch.ones_like(cosine) if where is None else where.to(cosine)
        cosine = cosine if where is None else torch.where(where, cosine, 0)
        for total, value in ((cosines, cosine), (counts, counted)):
            add_by_cell(total, value, cells.cell.flatten())

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        dims = ("step", *span.cell_dims, "layer")
        n = span.split_cells(sums["n"].cpu(), axis=1)
        total = span.split_cells(sums["cosine"].cpu(), axis=1)
        return labelled(
            {"cosine": (dims, (total / n).clamp(-1, 1)), "n": (dims, n.long())},
            span,
            estimator="cosine of resid_pre with resid_post of the same block, in float32 or wider",
            pooling="mean over positions; a position counts once a step",
            positions="all but padding, what follows the end of a row, and rows at which the block did not act",
            channels_left_out=list(self.drop),
            n=int(sums["n"].sum((0, 1)).max()),
        )

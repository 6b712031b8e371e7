"""How little a block changes the direction of the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.measures.base.arrays import DropsChannels, LayerValues, acted, fused, left_out, scratch, wide_dtype
from dlens.measures.base.means import PositionMeans
from dlens.measures.base.measure import Span, Sums, Visit

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
class Cosine(DropsChannels, PositionMeans):
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

    replays = True
    formulas = {"cosine": "cosine of resid_pre with resid_post of the same block, in float32 or wider"}
    where_acted = ("n",)
    positions = "all but padding, what follows the end of a row, and rows at which the block did not act"

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_pre", "resid_post")

    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch position"]]:
        pre, post = self._both(visit)
        return {"cosine": row_cosine(pre, post, scratch(visit, "stream", post.shape, wide_dtype(post)))}

    def update(self, sums: Sums, visit: Visit) -> None:
        cosine, n = (sums[key][visit.step, :, visit.at] for key in ("cosine", "n"))
        if (kernels := fused(visit.values["resid_pre"], n)) is None:
            return super().update(sums, visit)
        pre, post = (value.flatten(1, 2) for value in self._both(visit))
        kernels.add_cosine(pre, post, visit.cells.state, visit.cells.noise, acted(visit), cosine, n)

    def finish(self, name: str, total: Tensor, n: Tensor, span: Span) -> Tensor:
        return super().finish(name, total, n, span).clamp(-1, 1)

    def _both(self, visit: Visit) -> tuple[LayerValues, LayerValues]:
        pre, post = (left_out(visit.values[point], self.drop) for point in self.points)
        return pre, post

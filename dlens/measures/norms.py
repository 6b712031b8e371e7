"""How long the stream is, and how much each block adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.measures.base.arrays import DropsChannels, left_out, wide
from dlens.measures.base.means import PositionMeans
from dlens.measures.base.measure import Span, Visit

__all__ = ["Norms"]


@final
@dataclass(frozen=True, kw_only=True)
class Norms(DropsChannels, PositionMeans):
    """Length of what leaves each block, and of what the block added relative to what entered it.

    The dataset holds, over step, noise (where it is defined), state and layer: "norm", the mean over
    positions of |resid_post|; "rms", the root of the mean square over positions and channels of
    resid_post; "change", the mean over positions of |resid_post - resid_pre| / |resid_pre|, NaN where the
    block did not act; "n", the number of positions, and "n_acted", those at which the block acted.
    All in float32 or wider; the formulas are dlens's own.

    Args:
        drop: channels left out.
        name: key in `record.measures`, "norms" by default.

    Examples:
        >>> Norms().key
        'norms'
    """

    replays = True
    formulas = {
        "norm": "mean |resid_post|",
        "rms": "root of the mean square over positions and channels",
        "change": "mean |resid_post - resid_pre| / |resid_pre|",
    }
    counted = {"change": "n_acted"}
    where_acted = ("n_acted",)
    pooling = "over positions; a position counts once a step"
    positions = "all but padding and what follows the end of a row; change: where the block acted"

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_pre", "resid_post")

    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch position"]]:
        pre, post = (wide(left_out(visit.values[point], self.drop)) for point in self.points)
        norm = torch.linalg.vector_norm(post, dim=-1).double()
        change = torch.linalg.vector_norm(post - pre, dim=-1).double() / torch.linalg.vector_norm(pre, dim=-1)
        return {"norm": norm, "rms": norm.square(), "change": change}

    def finish(self, name: str, total: Tensor, n: Tensor, span: Span) -> Tensor:
        if name != "rms":
            return super().finish(name, total, n, span)
        width = span.d_model - len(set(self.drop))
        return super().finish(name, total, n * width, span).sqrt()

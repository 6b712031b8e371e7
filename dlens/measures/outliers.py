"""Which channels of the residual stream hold its energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from dlens.measures.arrays import fused, labelled, rows, wide
from dlens.measures.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Outliers"]


@final
@dataclass(frozen=True, kw_only=True)
class Outliers(Measure):
    """The largest channels of what leaves each block, and how far they stand out.

    With h the stream at resid_post and sums over positions t:
    energy share of channel c = sum_t h[t, c]^2 / sum_t |h[t]|^2, and
    max over median = max_c m[c] / median_c m[c] with m[c] = mean_t |h[t, c]|.

    The dataset holds "energy_share" over noise (where it is defined), state, layer and the `top`
    channels, largest first by their share averaged over all layers but the last, which can remove
    an outlier by itself; "max_median" and "n", the number of positions, over noise, state and
    layer; and per layer, all cells together, the largest channel "top_channel" with "top_share".
    Memory is the same for every number of steps and positions.

    Args:
        top: how many channels to keep.
        name: key in `record.measures`, "outliers" by default.

    >>> Outliers(top=3).key
    'outliers'
    """

    top: int = 8

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top={self.top}; expected at least 1, the number of channels to keep; give 8")

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        shape = (span.n_cells, span.n_layers)
        sizes = {"energy": (*shape, span.d_model), "magnitude": (*shape, span.d_model), "n": shape}
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        h = rows(visit.values["resid_post"])
        cells = visit.cells
        energy, magnitude, n = (sums[key][:, visit.layer] for key in ("energy", "magnitude", "n"))
        if (kernels := fused(h, n)) is not None:
            kernels.add_outliers(h.contiguous(), cells.weight, cells.index, energy, magnitude, n)
            return
        h = wide(h)
        weight = cells.weight.to(h)
        index = cells.index.to(n.device)
        for total, value in ((energy, weight @ h.square()), (magnitude, weight @ h.abs()), (n, weight.sum(-1))):
            total.index_add_(0, index, value.to(total))

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        # Reduced where the sums are: they are large, and the result is small.
        energy, magnitude, n = (sums[key] for key in ("energy", "magnitude", "n"))
        pooled = _share(energy.sum(0))
        channels = _top_channels(pooled, self.top)
        top_share, top_channel = pooled.max(-1)
        mean = magnitude / n[..., None]
        cells = (*span.cell_dims, "layer")
        return labelled(
            {
                "energy_share": ((*cells, "channel"), span.split_cells(_share(energy)[..., channels], axis=0)),
                "max_median": (cells, span.split_cells(mean.amax(-1) / _median(mean), axis=0)),
                "n": (cells, span.split_cells(n.long(), axis=0)),
                "top_channel": (("layer",), top_channel),
                "top_share": (("layer",), top_share),
            },
            span,
            coords={"channel": channels.tolist()},
            estimator="share of the sum of squares at resid_post; largest over median of the channels' mean magnitude",
            pooling="sums over positions and steps before each ratio",
            positions="all but padding and what follows the end of a row",
            channels_left_out=[],
            n=int(n.sum(0).max()),
        )


def _median(values: Tensor) -> Tensor:
    """The middle value of the last axis, the mean of the middle two where their number is even."""
    ordered = values.sort(-1).values
    size = ordered.shape[-1]
    return (ordered[..., (size - 1) // 2] + ordered[..., size // 2]) / 2


def _share(energy: Tensor) -> Tensor:
    """Each channel's part of the energy; NaN where there is none."""
    return energy / energy.sum(-1, keepdim=True)


def _top_channels(shares: Tensor, top: int) -> Tensor:
    """The channels with the largest share averaged over all layers but the last."""
    mean = shares[: max(1, len(shares) - 1)].nanmean(0).nan_to_num()
    return mean.topk(min(top, len(mean))).indices

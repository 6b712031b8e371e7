"""Which channels of the residual stream hold its energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import plain_fields, require_word
from dlens.measures.base.arrays import LayerValues, fused, labelled, scratch, wide, wide_dtype, zeroed
from dlens.measures.base.cells import Cells
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.settings import require_above, require_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Outliers"]

_BY_LAYER = {"steps_led", "steps"}


@final
@dataclass(frozen=True, kw_only=True)
class Outliers(Measure):
    """The largest channels of what leaves each block, how far they stand out, and where they persist.

    With h the stream at resid_post and sums over positions t:
    energy share of channel c = sum_t h[t, c]^2 / sum_t |h[t]|^2, and
    max over median = max_c m[c] / median_c m[c] with m[c] = mean_t |h[t, c]|.
    Both are dlens's own; the code behind arXiv 2605.06366 looks for its super-outlier by the mean magnitude of what
    enters attention after its norm.
    A channel peaks at a position where its magnitude is the largest there.

    The dataset holds the `top` channels, largest first by their energy share averaged over all
    layers but the last, which can remove an outlier by itself. Over noise (where it is defined),
    state, layer and channel: "energy_share", and "peak_share", the share of positions at which the
    channel peaks. Over layer and channel: "steps_led", the share of steps, of all prompts, at which it
    peaks at more than half of the prompt's positions; over channel: "layers_led", the share of layers
    at which it does so over all positions together. Over noise, state and layer: "max_median" and "n", the number of
    positions. Per layer, all cells together: the largest channel "top_channel" with "top_share"; -1 and NaN
    where the stream is not finite, or nothing but zeros.

    With `massive`, also over noise, state and layer: "mmr", the mean over positions of max_c |h[t, c]| /
    median_c |h[t, c]| (the ratio of arXiv 2509.23500), and "massive_share", the share of
    positions where that ratio is above `massive`. Sun et al. (arXiv 2402.17762) call an activation massive
    above 1000 times the median and above 100; the second is a matter of scale and left out.

    The median is the middle value, the mean of the middle two where the channels are even in number. The code behind
    arXiv 2605.06366 takes torch's, the lower of the two, which makes its mmr a little larger: median="lower" gives
    that number.

    Memory is the same for every number of steps and positions.

    Args:
        top: how many channels to keep.
        massive: the ratio above which a position has a massive activation; None leaves this out,
            as medians of every position take longer than all the rest.
        median: of an even number of channels, "middle" or "lower".
        name: key in `record.measures`, "outliers" by default.

    Examples:
        >>> Outliers(top=3, massive=1000).key
        'outliers'
    """

    replays = True
    top: int = 8
    massive: float | None = None
    median: Literal["middle", "lower"] = "middle"

    def __post_init__(self) -> None:
        require_count("top", self.top, "the number of channels to keep", 8)
        if self.massive is not None:
            require_above("massive", self.massive, 1, "a ratio above 1, or None", 1000)
        require_word("median", self.median, ("middle", "lower"), "'middle' or 'lower'")
        plain_fields(self)

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        cells, channels = (span.n_cells, span.n_layers), (span.n_layers, span.d_model)
        sizes = {
            "energy": (span.n_cells, *channels),
            "magnitude": (span.n_cells, *channels),
            "peaks": (span.n_cells, *channels),
            "steps_led": channels,
            "steps": (span.n_layers,),
            "n": cells,
        }
        if self.massive is not None:
            sizes |= {"mmr": cells, "massive": cells}
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        value, cells = visit.values["resid_post"], visit.cells
        here = {key: total[visit.at] if key in _BY_LAYER else total[:, visit.at] for key, total in sums.items()}
        if (kernels := fused(value, sums["n"])) is not None:
            kernels.add_outliers(value, cells.state, cells.noise, here)
        else:
            self._add(here, zeroed(value, cells), visit)
        if self.massive is not None:
            size = value.abs()
            ratio = wide(size.amax(-1)) / wide(_median(size, self.median))
            for key, each in (("mmr", ratio), ("massive", (ratio > self.massive).to(ratio))):
                cells.add(here[key], each)

    def _add(self, sums: Sums, h: LayerValues, visit: Visit) -> None:
        """What the fused kernel adds; `h` is 0 where nothing is measured."""
        cells = visit.cells
        counts, n = cells.sizes[:, :-1], cells.sizes[:, -1]
        work = scratch(visit, "stream", h.shape, wide_dtype(h))
        magnitude = _by_state(work.copy_(h).abs_(), cells)
        largest = work.amax(-1, keepdim=True)
        # 0 at the largest channel, -1 elsewhere: several times cheaper than an argmax. A row that is not finite
        # peaks nowhere that is known.
        peaks = _by_state(work.sub_(largest).sign_(), cells) + counts[..., None] + _by_state(largest - largest, cells)
        energy = _by_state(work.copy_(h).square_(), cells)
        for key, part in {"energy": energy, "magnitude": magnitude, "peaks": peaks}.items():
            cells.add_states(sums[key], part)
        cells.add_states(sums["n"], counts.expand(len(h), -1, -1))
        sums["steps_led"] += (peaks.sum(2) > n[:, None] / 2).sum(1)
        sums["steps"] += (n > 0).sum()

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        # Reduced where the sums are: they are large, and the result is small.
        energy, magnitude, peaks, n = (sums[key] for key in ("energy", "magnitude", "peaks", "n"))
        pooled = _share(energy.sum(0))
        channels = _top_channels(pooled, self.top)
        top_share, top_channel = pooled.max(-1)
        mean = magnitude / n[..., None]
        led = peaks.sum(0)[:, channels] > n.sum(0)[:, None] / 2
        cells = (*span.cell_dims, "layer")

        def by_cell(value: Tensor) -> Tensor:
            return span.split_cells(value, axis=0)

        variables = {
            "energy_share": ((*cells, "channel"), by_cell(_share(energy)[..., channels])),
            "peak_share": ((*cells, "channel"), by_cell(peaks[..., channels] / n[..., None])),
            "steps_led": (("layer", "channel"), sums["steps_led"][:, channels] / sums["steps"][:, None]),
            "layers_led": (("channel",), led.double().mean(0)),
            "max_median": (cells, by_cell(mean.amax(-1) / _median(mean, self.median))),
            "n": (cells, by_cell(n.long())),
            "top_channel": (("layer",), torch.where(top_share.isnan(), -1, top_channel)),
            "top_share": (("layer",), top_share),
        }
        if self.massive is not None:
            variables |= {"mmr": (cells, by_cell(sums["mmr"] / n))}
            variables |= {"massive_share": (cells, by_cell(sums["massive"] / n))}
        return labelled(
            variables,
            span,
            coords={"channel": channels.tolist()},
            estimator="share of the sum of squares at resid_post; largest over median of the channels' mean magnitude",
            pooling="sums over positions and steps before each ratio",
            positions="all but padding and what follows the end of a row",
            channels_left_out=[],
            n=int(n.sum(0).max()),
            **({} if self.massive is None else {"massive": f"above {self.massive} x the median of the same position"}),
        )


def _by_state(value: LayerValues, cells: Cells) -> Float[Tensor, "layer batch state d_model"]:
    """Sums over the positions of each row in each state."""
    return cells.member.mT.to(value) @ value


def _median(values: Tensor, which: str) -> Tensor:
    """The middle value of the last axis; where their number is even the mean of the middle two, or the lower."""
    if which == "lower":
        return values.median(-1).values
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

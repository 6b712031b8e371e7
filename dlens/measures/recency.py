"""How much more alike near positions are than far ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from dlens.checks import plain_fields
from dlens.measures.base.arrays import DropsChannels, check_channels, labelled, scratch
from dlens.measures.base.gram import Matrices, cosines, gram_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.settings import require_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Recency"]

# Beyond any context; the profiles of 32 layers at ten noise levels then take 0.7 GB.
_FARTHEST = 2**17


def by_distance(
    pairs: Float[Tensor, "*batch position position_b"], work: Float[Tensor, "*batch position position_b"] | None = None
) -> Float[Tensor, "*batch distance"]:
    """Sums over the diagonals above the main one: the pairs at distance 1, 2, ... positions - 1.

    Args:
        pairs: one number for every two positions.
        work: contiguous memory to write over, of that shape; None takes its own.
    """
    n = pairs.shape[-1]
    work = torch.empty(pairs.shape, dtype=pairs.dtype, device=pairs.device) if work is None else work
    upper = torch.triu(pairs, 1, out=work)
    # Row i read from its own diagonal on: column d is the pair (i, i + d); what lies behind the end of
    # a row is the start of the next, which is zero below the diagonal.
    strides = (*upper.stride()[:-2], n + 1, 1)
    return upper.as_strided((*upper.shape[:-2], max(0, n - 1), n), strides).sum(-2)[..., 1:]


@dataclass(frozen=True)
class _Pairs:
    """Which positions of a prompt are how far apart: the same for all layers of a step.

    Args:
        measured: which positions count.
        n: how many pairs there are at distance 1, 2, ...
        weights: from sums over pairs by distance to the mean over all pairs, and to the recency index.
        last: the last measured position of each row.
        before: the positions 1, 2, ... before it, and `there`, whether they are measured.
    """

    measured: Bool[Tensor, "batch position"]
    n: Float64[Tensor, "batch distance"]
    weights: Float64[Tensor, "batch distance 2"]
    last: Int[Tensor, "batch 1"]
    before: Int[Tensor, "batch distance"]
    there: Bool[Tensor, "batch distance"]


def _pairs_of(measured: Bool[Tensor, "batch position"]) -> _Pairs:
    n = by_distance((measured[:, :, None] & measured[:, None, :]).double())
    columns = torch.arange(measured.shape[-1], device=measured.device)
    far = ((2 * columns[1:] >= measured.sum(-1, keepdim=True)) & (n > 0)).double()
    index = -far / far.sum(-1, keepdim=True).clamp(min=1)
    index[:, 0] += 1
    mean = 1 / n.sum(-1, keepdim=True).clamp(min=1)
    weights = torch.stack([mean.expand_as(n), index / n.clamp(min=1)], -1)
    last = torch.where(measured, columns, 0).amax(-1, keepdim=True)
    places = last - columns[1:]
    before = places.clamp(min=0)
    there = (places >= 0) & measured.gather(1, before)
    return _Pairs(measured, n, weights, last, before, there)


@final
@dataclass(frozen=True, kw_only=True)
class Recency(DropsChannels, Measure):
    """Cosine between the vectors of two positions of a prompt, by their distance in tokens.

    S[i, j] = cos(h_i, h_j) at resid_post of one layer and step; P(d) = mean of S over |i - j| = d.
    The recency index is P(1) - mean of P(d) over d >= n / 2 with n the prompt's positions: 0 where
    distance does not matter. S is symmetric, so all of this is the same for causal and
    bidirectional models; padding and what follows the end of a row are left out. The recency bias is that of
    arXiv 2603.07475, which publishes no formula: this one is dlens's own.

    The dataset holds, over noise (where it is defined) and layer: "similarity" by distance, "to_last"
    by distance before the last position, "adjacent" = P(1), "off_diagonal" = mean over i != j,
    "recency_index", averaged over prompts and steps; and the counts "n" (prompts x steps of two
    positions or more), "pairs" and "last_pairs" by distance.

    Where a model decodes with a cache, a step computes one position, which has no pairs: the result
    is that of the prompt. A forward over the finished tokens has them all.

    Args:
        max_distance: of the profiles, at most 131072; the index and the mean use every distance.
        drop: channels left out.
        name: key in `record.measures`, "recency" by default.

    Examples:
        >>> Recency(max_distance=32).key
        'recency'
    """

    replays = True
    max_distance: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("max_distance", self.max_distance, "", 128, most=_FARTHEST)
        plain_fields(self)

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        by_layer, profile = (span.n_noise, span.n_layers), (span.n_noise, self.max_distance)
        sizes = {
            "similarity": (*by_layer, self.max_distance),
            "to_last": (*by_layer, self.max_distance),
            "off_diagonal": by_layer,
            "index": by_layer,
            "pairs": profile,
            "last_pairs": profile,
            "n": (span.n_noise,),
        }
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        if visit.cells.state.shape[-1] < 2:
            return
        pairs = self._pairs(visit)
        gram = gram_of(visit, self.drop)
        # Gram is done with the memory that the stream was written to.
        work, upper = (scratch(visit, name, gram.base.shape, gram.base.dtype) for name in ("pairs", "stream"))
        similar = cosines(gram.raw(work), pairs.measured, work)
        profile = by_distance(similar, upper).double()
        means = torch.einsum("lbd,bdk->klb", profile, pairs.weights)
        off_diagonal, index = torch.where(pairs.n[:, 0] > 0, means, 0)
        found = {
            "similarity": profile,
            "to_last": _to_last(similar, pairs),
            "off_diagonal": off_diagonal,
            "index": index,
        }
        for key, value in found.items():
            _add(sums[key][:, visit.at], visit.cells.noise, value.transpose(0, 1))
        if visit.last:
            counts = {"pairs": pairs.n, "last_pairs": pairs.there, "n": pairs.n[:, 0] > 0}
            for key, value in counts.items():
                _add(sums[key], visit.cells.noise, value)

    def _pairs(self, visit: Visit) -> _Pairs:
        """Once a step; again from the step before, where asking whether it still holds costs no waiting."""
        if self not in visit.carried:
            measured, before = visit.cells.state >= 0, visit.kept.get(self)
            same = before is not None and measured.device.type == "cpu" and torch.equal(before.measured, measured)
            visit.carried[self] = visit.kept[self] = before if same else _pairs_of(measured)
        return visit.carried[self]

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        sums = {key: value.cpu() if span.has_noise else value.cpu()[0] for key, value in sums.items()}
        noise = span.noise_dims
        similarity = sums["similarity"] / sums["pairs"].unsqueeze(-2)
        n = sums["n"].unsqueeze(-1)
        return labelled(
            {
                "similarity": ((*noise, "layer", "distance"), similarity),
                "to_last": ((*noise, "layer", "distance"), sums["to_last"] / sums["last_pairs"].unsqueeze(-2)),
                "adjacent": ((*noise, "layer"), similarity[..., 0]),
                "off_diagonal": ((*noise, "layer"), sums["off_diagonal"] / n),
                "recency_index": ((*noise, "layer"), sums["index"] / n),
                "pairs": ((*noise, "distance"), sums["pairs"].long()),
                "last_pairs": ((*noise, "distance"), sums["last_pairs"].long()),
                "n": (noise, sums["n"].long()),
            },
            span,
            coords={"distance": list(range(1, self.max_distance + 1))},
            estimator="cosine between two positions of a prompt; recency_index = P(1) - mean of P(d) over d >= n / 2",
            pooling="profiles over all pairs of a bin; off_diagonal and recency_index over prompts and steps",
            positions="all but padding and what follows the end of a row; distance in tokens",
            point="resid_post of every layer",
            channels_left_out=list(self.left_out),
            n=int(sums["n"].sum()),
        )


def _add(total: Tensor, noise: Int[Tensor, " batch"], value: Tensor) -> None:
    """Add each row to the sums of its noise; of distances as many as are kept."""
    if total.ndim > 1:
        near = min(total.shape[-1], value.shape[-1])
        total, value = total[..., :near], value[..., :near]
    total.index_add_(0, noise, value.to(total))


def _to_last(similar: Matrices, pairs: _Pairs) -> Float[Tensor, "layer batch distance"]:
    """The cosine with the last measured position, 1, 2, ... before it; 0 where there is none."""
    rows = similar.take_along_dim(pairs.last[None, ..., None], 2)[:, :, 0]
    return torch.where(pairs.there, rows.take_along_dim(pairs.before[None], 2), 0)

"""How much more alike near positions are than far ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.measures.arrays import check_channels, labelled
from dlens.measures.gram import Matrices, gram_of
from dlens.measures.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Recency"]

_BY_LAYER = {"similarity", "to_last", "off_diagonal", "index"}
_BY_DISTANCE = {"similarity", "to_last", "pairs", "last_pairs"}


def by_distance(pairs: Float[Tensor, "*batch position position_b"]) -> Float[Tensor, "*batch distance"]:
    """Sums over the diagonals above the main one: the pairs at distance 1, 2, ... positions - 1."""
    n = pairs.shape[-1]
    upper = pairs.triu(1).contiguous()
    # Row i read from its own diagonal on: column d is the pair (i, i + d); what lies behind the end of
    # a row is the start of the next, which is zero below the diagonal.
    strides = (*upper.stride()[:-2], n + 1, 1)
    return upper.as_strided((*upper.shape[:-2], max(0, n - 1), n), strides).sum(-2)[..., 1:]


def cosines(raw: Matrices, measured: Bool[Tensor, "batch position"]) -> Matrices:
    """Cosine of every two measured positions; 0 where one is zero or not measured."""
    lengths = raw.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = torch.where(measured & (lengths != 0), 1 / lengths, 0)
    return raw.mul_(scale[..., :, None]).mul_(scale[..., None, :])


@final
@dataclass(frozen=True, kw_only=True)
class Recency(Measure):
    """Cosine between the vectors of two positions of a prompt, by their distance in tokens.

    S[i, j] = cos(h_i, h_j) at resid_post of one layer and step; P(d) = mean of S over |i - j| = d.
    The recency index is P(1) - mean of P(d) over d >= n / 2 with n the prompt's positions: 0 where
    distance does not matter. S is symmetric, so all of this is the same for causal and
    bidirectional models; padding and what follows the end of a row are left out.

    The dataset holds, over noise (where it is defined) and layer: "similarity" by distance, "to_last"
    by distance before the last position, "adjacent" = P(1), "off_diagonal" = mean over i != j,
    "recency_index", averaged over prompts and steps; and the counts "n" (prompts x steps of two
    positions or more), "pairs" and "last_pairs" by distance.

    Where a model decodes with a cache, a step computes one position, which has no pairs: the result
    is that of the prompt. A forward over the finished tokens has them all.

    Args:
        max_distance: of the profiles; the index and the mean use every distance.
        drop: channels left out.
        name: key in `record.measures`, "recency" by default.

    Examples:
        >>> Recency(max_distance=32).key
        'recency'
    """

    max_distance: int = 128
    drop: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", tuple(self.drop))
        if self.max_distance < 1:
            raise ValueError(f"max_distance={self.max_distance}; expected at least 1; give 128")

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        by_layer, by_distance = (span.n_noise, span.n_layers), (span.n_noise, self.max_distance)
        sizes = {
            "similarity": (*by_layer, self.max_distance),
            "to_last": (*by_layer, self.max_distance),
            "off_diagonal": by_layer,
            "index": by_layer,
            "pairs": by_distance,
            "last_pairs": by_distance,
            "n": (span.n_noise,),
        }
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        gram = gram_of(visit, self.drop)
        measured = visit.cells.state.to(gram.within.device) >= 0
        noise = visit.cells.noise.to(measured.device)
        pairs = by_distance((measured[:, :, None] & measured[:, None, :]).double())
        if not pairs.shape[-1]:
            return
        similar = cosines(gram.raw(), measured)
        profile = by_distance(similar).double()
        to_last, last_pairs = _to_last(similar, measured)
        some = pairs[:, 0] > 0
        off_diagonal = torch.where(some, profile.sum(-1) / pairs.sum(-1), 0)
        index = torch.where(some, _index(profile, pairs, measured.sum(-1)), 0)
        near = min(self.max_distance, pairs.shape[-1])

        def add(key: str, value: Tensor) -> None:
            total = sums[key][..., :near] if key in _BY_DISTANCE else sums[key]
            if key in _BY_LAYER:
                total, value = total[:, visit.at], value.transpose(0, 1)
            total.index_add_(0, noise, value.to(total))

        add("similarity", profile[..., :near])
        add("to_last", to_last[..., :near])
        add("off_diagonal", off_diagonal)
        add("index", index)
        if visit.last:
            add("pairs", pairs[:, :near])
            add("last_pairs", last_pairs[:, :near])
            add("n", some)

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
            channels_left_out=list(self.drop),
            n=int(sums["n"].sum()),
        )


def _index(profile: Tensor, pairs: Float[Tensor, "batch distance"], n: Tensor) -> Float[Tensor, "layer batch"]:
    """P(1) - mean of P(d) over d >= n / 2, of each prompt."""
    mean = profile / pairs.clamp(min=1)
    distance = torch.arange(1, pairs.shape[-1] + 1, device=pairs.device)
    far = (2 * distance >= n[:, None]) & (pairs > 0)
    return mean[..., 0] - torch.where(far, mean, 0).sum(-1) / far.sum(-1)


def _to_last(similar: Matrices, measured: Bool[Tensor, "batch position"]) -> tuple[Tensor, Tensor]:
    """[layer, batch, distance], the cosine with the last measured position, and where there is one."""
    columns = torch.arange(measured.shape[-1], device=measured.device)
    last = torch.where(measured, columns, 0).amax(-1)
    rows = similar.take_along_dim(last[None, :, None, None], 2)[:, :, 0]
    before = last[:, None] - columns[1:]
    there = (before >= 0) & measured.gather(1, before.clamp(min=0))
    values = rows.take_along_dim(before.clamp(min=0)[None], 2)
    return torch.where(there, values, 0), there

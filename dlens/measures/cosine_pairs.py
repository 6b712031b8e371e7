"""Cosine between every two layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import as_flag, plain_fields, require_word
from dlens.measures.base.arrays import DropsChannels, LayerValues, check_channels, labelled, wide, zeroed
from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CosinePairs"]


def detrend(h: LayerValues) -> LayerValues:
    """Per position and channel, minus the mean over layers, over their (unbiased) standard deviation."""
    return (h - h.mean(0)) / h.std(0).clamp(min=1e-8)


def unit(h: Float[Tensor, "layer *rows d_model"]) -> Float[Tensor, "layer *rows d_model"]:
    """Rows of length 1; zero stays zero."""
    return h / torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)


@final
@dataclass(frozen=True, kw_only=True)
class CosinePairs(DropsChannels, Measure):
    """Cosine of resid_post at one layer with resid_post at another, for every two layers.

    Per (noise, state) cell, by what is averaged: average="cosines": mean over positions t of cos(h[l, t], h[m, t]);
    average="positions": cos(mean_t h[l, t], mean_t h[m, t]) over the positions of one prompt at one step, averaged
    over prompts and steps; average="all": the same cosine with one mean over the positions of all prompts and steps.
    `detrended` first takes from each position and channel its mean over layers, and divides by the
    (unbiased) standard deviation over layers: what all layers share, an outlier channel among it, no longer counts.

    The code behind arXiv 2605.06366 leaves the last block out, last=False, and knows no cells: its per-token
    cosine is "cosine" of average="cosines", weighted by "n" over cells; its pooled cosine is "cosine_all" of
    average="all"; detrended=True gives the detrended ones. average="positions" is dlens's own, and another number
    wherever there are several prompts.

    The dataset holds "cosine" over noise (where it is defined), state, layer and layer_b, and "n":
    positions, or for average="positions" pairs of prompt and step; for average="all" also "cosine_all", with one mean
    over all cells, and "n_all".

    Args:
        average: what is averaged.
        detrended: whether to remove what layers share.
        last: whether the last block counts; the code above leaves it out, which matters to detrending.
        drop: channels left out.
        name: key in `record.measures`, "cosine_pairs" by default.

    Examples:
        >>> CosinePairs(detrended=True).key
        'cosine_pairs'
    """

    replays = True
    average: Literal["cosines", "positions", "all"] = "cosines"
    detrended: bool = False
    last: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        averages = ("cosines", "positions", "all")
        require_word("average", self.average, averages, "'cosines', 'positions' or 'all'")
        for name in ("detrended", "last"):
            as_flag(getattr(self, name), name)
        plain_fields(self)

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        check_channels(self.drop, span.d_model)
        layers = span.n_layers - (not self.last)
        sizes = {"cosine": (span.n_cells, layers, layers), "n": (span.n_cells,)}
        if self.average == "all":
            sizes = {"position": (span.n_cells, layers, span.d_model), "n": (span.n_cells,)}
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        parts: list[Tensor] = visit.carried.setdefault(self, [])
        h = wide(zeroed(visit.values["resid_post"], visit.cells, self.drop))
        if not visit.last:
            # The memory of a visit is used again.
            parts.append(h.clone())
            return
        h = torch.cat([*parts, h])
        h = h if self.last else h[:-1]
        add = {"cosines": self._add_cosines, "positions": self._add_positions, "all": self._add_all}[self.average]
        add(sums, visit, detrend(h) if self.detrended else h)

    def _add_cosines(self, sums: Sums, visit: Visit, h: LayerValues) -> None:
        by_row = unit(h.flatten(1, 2)).transpose(0, 1)
        products = torch.bmm(by_row, by_row.mT).unflatten(0, h.shape[1:3])
        cells = visit.cells
        cells.add_states(sums["cosine"], torch.einsum("bns,bnlm->lbsm", cells.member.to(products), products))
        cells.add_states(sums["n"][:, None], cells.sizes[None, :, :-1])

    def _add_positions(self, sums: Sums, visit: Visit, h: LayerValues) -> None:
        cells = visit.cells
        means = unit(torch.einsum("bns,lbnd->lbsd", cells.averaging[..., :-1].to(h), h))
        some = (cells.sizes[:, :-1] > 0).double()
        products = torch.einsum("lbsd,mbsd->lbsm", means, means).double()
        cells.add_states(sums["cosine"], torch.where(some[..., None] > 0, products, 0))
        cells.add_states(sums["n"][:, None], some[None])

    def _add_all(self, sums: Sums, visit: Visit, h: LayerValues) -> None:
        cells = visit.cells
        cells.add_states(sums["position"], torch.einsum("bns,lbnd->lbsd", cells.member.to(h), h))
        cells.add_states(sums["n"][:, None], cells.sizes[None, :, :-1])

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        n = sums["n"].cpu()
        cosine = _cosines(sums["position"].cpu(), n) if self.average == "all" else sums["cosine"].cpu()
        cosine = cosine if self.average == "all" else (cosine / n[:, None, None]).clamp(-1, 1)
        layers = list(range(cosine.shape[-1]))
        variables: dict[str, tuple[tuple[str, ...], Tensor]] = {
            "cosine": ((*span.cell_dims, "layer", "layer_b"), span.split_cells(cosine, axis=0)),
            "n": (span.cell_dims, span.split_cells(n.long(), axis=0)),
        }
        if self.average == "all":
            overall = _cosines(sums["position"].sum(0, keepdim=True).cpu(), n.sum(0, keepdim=True))
            variables |= {"cosine_all": (("layer", "layer_b"), overall[0]), "n_all": ((), n.sum().long())}
        return labelled(
            variables,
            span,
            coords={"layer": layers, "layer_b": layers},
            estimator=f"cosine of resid_post at two layers, of {self._of}{self._trend}",
            pooling=f"mean over {self._over}",
            positions="all but padding and what follows the end of a row",
            channels_left_out=list(self.left_out),
            n=int(n.sum()),
        )

    @property
    def _of(self) -> str:
        means = {"cosines": "each position", "positions": "the mean position of a prompt at a step"}
        return means.get(self.average, "the mean position of all prompts and steps")

    @property
    def _over(self) -> str:
        return {"cosines": "positions and steps", "positions": "prompts and steps"}.get(self.average, "positions first")

    @property
    def _trend(self) -> str:
        return ", without the mean and spread over layers of each position and channel" if self.detrended else ""


def _cosines(position: Float[Tensor, "cell layer d_model"], n: Float[Tensor, " cell"]) -> Float[Tensor, "cell layer l"]:
    """Of sums over positions at every two layers; NaN where there is no position."""
    means = unit(position)
    products = torch.einsum("cld,cmd->clm", means, means).clamp(-1, 1)
    return torch.where(n[:, None, None] > 0, products, torch.nan)

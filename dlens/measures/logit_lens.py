"""What each layer would predict if it were the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.measures.base.arrays import labelled
from dlens.measures.base.cells import add_by_cell, mean_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.readout import Readout, ReadsTokens

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LogitLens"]


@final
@dataclass(frozen=True, kw_only=True)
class LogitLens(ReadsTokens, Measure):
    """The model's final norm and unembedding, applied to what leaves each block (nostalgebraist 2020).

    p_l = softmax(unembed(norm(resid_post of layer l))), in float64; the final layer's is the model's
    prediction before any operation on its logits. The token on top is the likeliest of the final layer.

    The dataset holds, over step, noise (where it is defined), state and layer: "kl", the mean of
    KL(p_final || p_l) in nats; "on_top", the share of positions at which p_l has the final token on top;
    "saturated", the share at which it is on top there and at every later layer (a saturation event,
    Jiang et al., arXiv 2406.14479). Over step, noise and state: "first", the mean over positions of the
    first layer with the final token on top; "saturation", of the first saturated layer; "n", positions.

    A position of a diffusion model is the one that is predicted, read one before where its logits are
    shifted; of an autoregressive model it is the one that is read.

    It costs one unembedding a layer and measured position, 2 x n_layers x d_model x vocab FLOPs, which is
    2.2 forwards for LLaDA-8B; logits are held for a few positions at a time, 32 MiB an array.

    Args:
        name: key in `record.measures`, "logit_lens" by default.

    Examples:
        >>> LogitLens().key
        'logit_lens'
    """

    def start(self, span: Span) -> Sums:
        cells = (span.n_steps, span.n_cells)
        sizes = dict.fromkeys(("kl", "on_top", "saturated"), (*cells, span.n_layers))
        sizes |= dict.fromkeys(("first", "saturation", "n"), cells)
        return {key: torch.zeros(size, dtype=torch.float64, device=span.device) for key, size in sizes.items()}

    def update(self, sums: Sums, visit: Visit) -> None:
        parts: list[Tensor] = visit.carried.setdefault(self, [])
        h = visit.values["resid_post"]
        if not visit.last:
            # The memory of a visit is used again.
            parts.append(h.clone())
            return
        assert visit.readout is not None
        h = torch.cat([*parts, h]) if parts else h
        state = visit.cells.state
        cell = visit.cells.cell
        for rows, columns, read in visit.readout.chunks(state >= 0, state):
            self._add(sums, visit.step, h[:, rows, read], cell[rows, columns], visit.readout)

    def _add(
        self, sums: Sums, step: int, h: Float[Tensor, "layer n d_model"], cell: Int[Tensor, " n"], readout: Readout
    ) -> None:
        kl, on_top = _compared(h, readout)
        saturated = on_top.flip(0).cumprod(0).flip(0)
        absent = torch.where(on_top.isnan().any(0), torch.nan, (on_top.cumsum(0) == 0).sum(0))
        by_layer = {"kl": kl, "on_top": on_top, "saturated": saturated}
        by_cell = {"first": absent, "saturation": len(h) - saturated.sum(0), "n": torch.ones_like(absent)}
        for key, values in by_layer.items():
            add_by_cell(sums[key][step], values, cell)
        for key, values in by_cell.items():
            add_by_cell(sums[key][step][:, None], values[None], cell)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        cells = ("step", *span.cell_dims)
        split = {key: span.split_cells(value.cpu(), axis=1) for key, value in sums.items()}
        n = split["n"]
        by_layer = {k: ((*cells, "layer"), mean_of(split[k], n[..., None])) for k in ("kl", "on_top", "saturated")}
        by_cell = {key: (cells, mean_of(split[key], n)) for key in ("first", "saturation")}
        predicted = "predicted, read before it where logits are shifted" if span.has_noise else "read"
        return labelled(
            by_layer | by_cell | {"n": (cells, n.long())},
            span,
            estimator="softmax of the model's own final norm and unembedding of resid_post, in float64; "
            "kl = KL(final || layer) in nats",
            pooling="mean over positions; a position counts once a step",
            positions=f"all but padding and what follows the end of a row; a position is the one that is {predicted}",
            channels_left_out=[],
            n=int(n.sum()),
        )


def _compared(
    h: Float[Tensor, "layer n d_model"], readout: Readout
) -> tuple[Float[Tensor, "layer n"], Float[Tensor, "layer n"]]:
    """KL(final || layer), and 1 where the final token is on top; both NaN where either is not finite."""
    final = readout.log_probabilities(h[-1])
    p, top = final.exp(), final.argmax(-1)
    kl = h.new_empty(h.shape[:2], dtype=torch.float64)
    on_top = torch.empty_like(kl)
    for layer, rows in enumerate(h):
        lens = final if layer == len(h) - 1 else readout.log_probabilities(rows)
        kl[layer] = (p * (final - lens)).sum(-1)
        on_top[layer] = torch.where(kl[layer].isnan(), torch.nan, (lens.argmax(-1) == top).double())
    return kl, on_top

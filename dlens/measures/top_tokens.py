"""The likeliest tokens at every position and step, at chosen layers, and how sure the model is among all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import plain_fields
from dlens.measures.base.arrays import labelled
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.measures.base.readout import Readout, ReadsTokens
from dlens.measures.base.settings import require_count, whole_numbers

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TopTokens"]

# Where nothing was measured.
_NOTHING = {"token": -1, "probability": torch.nan, "entropy": torch.nan}


@final
@dataclass(frozen=True, kw_only=True)
class TopTokens(ReadsTokens, Measure):
    """The `k` likeliest tokens with their probabilities, and the entropy, by the model's final norm and unembedding.

    p = softmax(unembed(norm(resid_post of a layer))), in float64, without the mask token, which no sampler
    takes. At the last layer these are the model's alternatives (before any operation on its logits), at others
    the logit lens (nostalgebraist 2020). A stand-in for captured logits that is smaller by vocabulary / (2 k).

    The dataset holds "token" and "probability" over step, layer, batch, position and rank, and "entropy" of p in nats
    over the same without rank; where nothing was measured (padding, what follows the end of a row, steps that never
    came) -1 and NaN. The position of a diffusion model is the one that is predicted, of an autoregressive model the
    one that is read; there step has length 1, as a position counts at the step that first computes it.

    Unlike other measures it keeps every step and position, 8 k + 4 bytes each and layer, and cannot be merged. It
    costs one unembedding a layer and position, 2 x d_model x vocab FLOPs.

    Args:
        k: tokens a position.
        layers: places, negative ones from the end; None is all.
        name: key in `record.measures`, "top_tokens" by default.

    Examples:
        >>> TopTokens(k=3, layers=[-1]).key
        'top_tokens'
    """

    k: int = 5
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        require_count("k", self.k, "the number of tokens to keep", 5, most=2**17)
        if self.layers is not None:
            object.__setattr__(self, "layers", whole_numbers("layers", self.layers))
        if self.layers == ():
            raise ValueError("layers=() names no layer; expected at least one; name some, or leave it out for all")
        plain_fields(self)

    def start(self, span: Span) -> Sums:
        size = (span.n_steps if span.has_noise else 1, len(self._places(span.n_layers)), 0, 0)
        return {
            "token": torch.full((*size, self.k), -1, dtype=torch.int32, device=span.device),
            "probability": torch.full((*size, self.k), torch.nan, device=span.device),
            "entropy": torch.full(size, torch.nan, device=span.device),
            "layer": torch.tensor(self._places(span.n_layers)),
        }

    def update(self, sums: Sums, visit: Visit) -> None:
        assert visit.readout is not None
        _widen(sums, max(visit.rows) + 1, visit.columns.stop)
        step = min(visit.step, len(sums["token"]) - 1)
        state = visit.cells.state
        of_batch = torch.tensor(visit.rows, device=state.device)
        here = [(n, layer) for n, layer in enumerate(sums["layer"].tolist()) if layer in visit.layers]
        for rows, columns, read in visit.readout.chunks(state >= 0, state):
            for number, layer in here:
                h = visit.values["resid_post"][layer - visit.layers.start, rows, read]
                at = (step, number, of_batch[rows], columns + visit.columns.start)
                found = _read(visit.readout, h, sums["token"].shape[-1])
                fresh = slice(None) if len(sums["token"]) > 1 else (sums["token"][at][:, 0] < 0)
                index = (*at[:2], at[2][fresh], at[3][fresh])
                for name, values in found.items():
                    sums[name][index] = values[fresh].to(sums[name])

    def merge(self, sums: Sums, other: Sums) -> Sums:
        raise ValueError("top tokens of two runs; expected one, as they belong to the positions of one; keep both")

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        dims = ("step", "layer", "batch", "position", "rank")
        steps, _, rows, width, k = sums["token"].shape
        return labelled(
            {name: (dims[: sums[name].ndim], sums[name]) for name in _NOTHING},
            span,
            coords={
                "step": list(range(steps)),
                "layer": sums["layer"].tolist(),
                "batch": list(range(rows)),
                "position": list(range(width)),
                "rank": list(range(k)),
            },
            estimator="softmax of the model's own final norm and unembedding of resid_post, in float64, without the "
            "mask token; entropy in nats",
            pooling="none",
            positions="all but padding and what follows the end of a row; a position is the one that is "
            + ("predicted" if span.has_noise else "read"),
            channels_left_out=[],
            n=int((sums["token"][..., 0] >= 0).sum()),
        )

    def _places(self, n_layers: int) -> list[int]:
        named = range(n_layers) if self.layers is None else self.layers
        for layer in named:
            if not -n_layers <= layer < n_layers:
                raise IndexError(f"layers names {layer}; expected -{n_layers} to {n_layers - 1}; give another")
        return sorted({layer % n_layers for layer in named})


def _widen(sums: Sums, rows: int, width: int) -> None:
    """Make room for rows and columns that were not there before."""
    for name, nothing in _NOTHING.items():
        old = sums[name]
        size = (*old.shape[:2], max(rows, old.shape[2]), max(width, old.shape[3]), *old.shape[4:])
        if size != old.shape:
            sums[name] = old.new_full(size, nothing)
            sums[name][:, :, : old.shape[2], : old.shape[3]] = old


def _read(readout: Readout, h: Float[Tensor, "n d_model"], k: int) -> dict[str, Tensor]:
    """The likeliest tokens, filled up with -1 and 0 where the vocabulary is smaller, and the entropy of all."""
    p = readout.probabilities(h)
    top = p.topk(min(k, p.shape[-1]))
    missing = (0, k - top.values.shape[-1])
    pad = torch.nn.functional.pad
    return {
        "token": pad(top.indices, missing, value=-1),
        "probability": pad(top.values, missing),
        "entropy": torch.special.entr(p).sum(-1),
    }

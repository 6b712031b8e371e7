"""Which features of a sparse autoencoder are active while a model runs, and what they leave unexplained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlens.axes import STATES, STREAM_POINTS
from dlens.checks import refuse, require_word, whole
from dlens.features.autoencoder import SparseAutoencoder
from dlens.measures.base.arrays import labelled
from dlens.measures.base.cells import mean_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Features"]

# Numbers of one array over the features that are held at a time: 64 MiB in float32.
_AT_A_TIME = 2**24


@final
@dataclass(frozen=True, kw_only=True)
class Features(Measure):
    """How often each feature of a sparse autoencoder is active, how strongly, and what all of them leave unexplained.

    The dataset holds, over step, state and feature: "rate", the share of positions at which the feature is above 0, and
    "mean", its mean over positions. Over step and state: "active", the mean number of features above 0,
    "explained_variance", 1 - sum |x - x'|^2 / sum |x - mean of x|^2 over the positions of the cell (DLM-Scope,
    arXiv 2602.05859), and "n", positions. The same by noise in place of step under names that end in "_by_noise",
    where the noise level is defined.

    It keeps 8 bytes a step, state and feature, and encodes every measured position of one layer.

    Args:
        sae: the autoencoder.
        layer: its place, negative ones from the end; its own by default.
        at: the hook point that it reads, of the stream; its own by default.
        name: key in `record.measures`, "features" by default.

    Examples:
        >>> import dlens
        >>> trace = dlens.trace("trio/diffusion").measure(dlens.Features(sae=dlens.load_sae("trio/diffusion")))
        >>> data = trace.generate("Once upon a time", 4).measures["features"]
        >>> data["rate"].dims, data["rate"].shape, data["rate_by_noise"].dims
        (('step', 'state', 'feature'), (4, 3, 1024), ('noise', 'state', 'feature'))
    """

    sae: SparseAutoencoder
    layer: int | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sae, SparseAutoencoder):
            refuse("sae", self.sae, "a sparse autoencoder", "pass dlens.load_sae('trio/diffusion'), or another one")
        at = self.sae.point if self.at is None else self.at
        require_word("at", at, STREAM_POINTS, f"a point of the stream: {', '.join(STREAM_POINTS)}")
        layer = self.layer if self.layer is not None else self.sae.layer if at == self.sae.point else None
        if whole(layer) is None:
            refuse("layer", layer, "the place that the autoencoder reads", "pass layer=8")
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "layer", whole(layer))

    @property
    def points(self) -> tuple[str, ...]:
        return (str(self.at),)

    def start(self, span: Span) -> Sums:
        n_layers, layer = span.n_layers, whole(self.layer) or 0
        if not -n_layers <= layer < n_layers:
            raise IndexError(f"layer={layer}; expected {-n_layers} to {n_layers - 1}; name a layer of this model")
        if span.d_model != self.sae.d_model:
            raise ValueError(
                f"an autoencoder of {self.sae.d_model} channels on a stream of {span.d_model}; expected as many; take "
                f"one that was trained on this model"
            )
        cells = {"step": span.n_steps * len(STATES)} | ({"noise": span.n_cells} if span.has_noise else {})
        sizes = {"n": 1, "square": 1, "error": 1, "sum": self.sae.d_model}
        sizes |= dict.fromkeys(("active", "total"), self.sae.n_features)
        sums = {"layer": torch.tensor(layer % n_layers)}
        for kind, number in cells.items():
            for name, size in sizes.items():
                # Sums that are subtracted from each other are wide.
                dtype = torch.float32 if name in ("active", "total") else torch.float64
                sums[f"{name} {kind}"] = torch.zeros(number, size, dtype=dtype, device=span.device)
        return sums

    def update(self, sums: Sums, visit: Visit) -> None:
        layer = int(sums["layer"])
        if layer not in visit.layers:
            return
        state = visit.cells.state
        measured = state >= 0
        x = visit.values[str(self.at)][layer - visit.layers.start][measured]
        cells = {"step": visit.step * len(STATES) + state[measured], "noise": visit.cells.cell[measured]}
        self._add(sums, x, {kind: cell for kind, cell in cells.items() if f"n {kind}" in sums})

    def merge(self, sums: Sums, other: Sums) -> Sums:
        return super().merge(sums, other) | {"layer": sums["layer"]}

    def _add(self, sums: Sums, x: Float[Tensor, "n d_model"], cells: Mapping[str, Int[Tensor, " n"]]) -> None:
        """Add positions to the cells that they are in."""
        own = self.sae.on(x.device)
        at_a_time = max(1, _AT_A_TIME // own.n_features)
        for first in range(0, len(x), at_a_time):
            part = slice(first, first + at_a_time)
            features, rows = own.encode(x[part]), x[part].to(own.encoder.dtype)
            error = (rows - own.decode(features, rows)).double().square().sum(-1, keepdim=True)
            square = rows.double().square().sum(-1, keepdim=True)
            found = {"active": features > 0, "total": features, "sum": rows, "square": square, "error": error}
            for kind, cell in cells.items():
                for name, values in (found | {"n": torch.ones_like(error)}).items():
                    total = sums[f"{name} {kind}"]
                    total.index_add_(0, cell[part], values.to(total.dtype))

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        variables: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        for kind in ("step", "noise") if span.has_noise else ("step",):
            own = {key.split()[0]: values.cpu().double() for key, values in sums.items() if key.endswith(f" {kind}")}
            ending = "" if kind == "step" else "_by_noise"
            for name, values in _means(own).items():
                values = values.unflatten(0, (-1, len(STATES)))
                dims = (kind, "state", "feature") if values.ndim == 3 else (kind, "state")
                variables[name + ending] = dims, values
        return labelled(
            variables,
            span,
            coords={"feature": list(range(self.sae.n_features))},
            estimator="rate = share of positions with the feature above 0; mean over positions; explained_variance = "
            "1 - sum |x - x'|^2 / sum |x - mean|^2 over the positions of a cell",
            pooling="mean over positions; a position counts once a step",
            positions="all but padding and what follows the end of a row",
            channels_left_out=[],
            point=str(self.at),
            layer=int(sums["layer"]),
            n=int(sums["n step"].sum()),
        )


def _means(sums: Mapping[str, Float[Tensor, "cell size"]]) -> dict[str, Tensor]:
    """The variables of cells from their sums; NaN where nothing was counted."""
    n = sums["n"]
    spread = sums["square"] - sums["sum"].square().sum(-1, keepdim=True) / n
    rate = mean_of(sums["active"], n)
    return {
        "rate": rate.float(),
        "mean": mean_of(sums["total"], n).float(),
        "active": rate.sum(-1),
        "explained_variance": torch.where(spread > 0, 1 - sums["error"] / spread, torch.nan)[:, 0],
        "n": n[:, 0].long(),
    }

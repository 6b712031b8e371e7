"""How alike tokens are by their distance, of one run: from its measure, or from its captured stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlens.measures.base.measure import N_NOISE_BINS
from dlens.tracing.records.record import Record
from dlens.widgets.denoising_numbers import mask_id
from dlens.widgets.layer_collapse_numbers import at_layer, stream

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "ALL_LEVELS",
    "DistanceProfile",
    "from_measure",
    "from_stream",
    "levels_of",
    "noise_of",
    "recency_of",
    "token_similarity",
]

ALL_LEVELS = -1


@dataclass(frozen=True)
class DistanceProfile:
    """Similarity by distance at one layer, and the recency index of every layer.

    Args:
        similarity: P(d) for d = 1, 2, ...; NaN where there is no pair.
        index: P(1) - mean of P(d) over d >= n / 2, by layer.
        about: what it was read from.
        pairs: how many pairs of tokens each distance has.
    """

    similarity: Float[np.ndarray, " distance"]
    index: Float[np.ndarray, " layer"]
    about: str
    pairs: Float[np.ndarray, " distance"]


def recency_of(record: Record) -> xr.Dataset | None:
    """What `dlens.Recency` measured; None without it."""
    return next((data for data in record.measures.values() if "recency_index" in data), None)


def levels_of(record: Record) -> list[int]:
    """The bins of the noise level in which something was measured; none where noise is undefined."""
    data = recency_of(record)
    if data is None or "noise" not in data.dims:
        return []
    return [int(i) for i in np.flatnonzero(data["n"].values > 0)]


def from_measure(record: Record, layer: int, level: int) -> DistanceProfile | None:
    """The profile at a noise level, from `dlens.Recency`.

    Args:
        record: a record.
        layer: whose P(d).
        level: bin of the noise, or `ALL_LEVELS`: bins weighted by their pairs, the index by prompts x steps. Where
            noise is undefined it is not used.

    Returns:
        None where nothing was measured.
    """
    data = recency_of(record)
    if data is None or not 0 <= layer < data.sizes["layer"]:
        return None
    if "noise" not in data.dims:
        similarity, pairs = data["similarity"].values[layer], data["pairs"].values.astype(float)
        return DistanceProfile(similarity, data["recency_index"].values, "no noise level", pairs)
    similarity, index = data["similarity"].values[:, layer], data["recency_index"].values
    pairs = data["pairs"].values.astype(float)
    if level == ALL_LEVELS:
        whole = _mean(index, np.broadcast_to(data["n"].values[:, None], index.shape))
        return DistanceProfile(_mean(similarity, pairs), whole, "all noise levels", pairs.sum(0))
    if level not in levels_of(record):
        return None
    low, high = (round(100 * bound / N_NOISE_BINS) for bound in (level, level + 1))
    return DistanceProfile(similarity[level], index[level], f"{low} to {high} % masked", pairs[level])


def _mean(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Weighted mean over the first axis; NaN where there is no weight."""
    total = n.sum(0)
    weighted = np.where(n > 0, values, 0) * n
    return np.divide(weighted.sum(0), total, out=np.full(total.shape, np.nan), where=total > 0)


def token_similarity(record: Record, row: int, layer: int, step: int, group: int = 1) -> Float[Tensor, "block block_b"]:
    """Cosine of resid_post between every two positions that are no padding, as means over blocks of neighbours.

    Args:
        record: with the stream captured.
        row, layer, step: where.
        group: neighbours in a block; the mean over two blocks is the product of their mean unit vectors.

    Raises:
        ValueError: it was not captured.
    """
    unit = torch.nn.functional.normalize(at_layer(record, row, step, layer), dim=-1)
    blocks = unit if group == 1 else torch.stack([part.mean(0) for part in unit.split(group)])
    return blocks @ blocks.mT


def from_stream(record: Record, row: int, layer: int, step: int) -> DistanceProfile:
    """The profile at one step, from the captured stream of one row.

    Raises:
        ValueError: it was not captured.
    """
    profiles, index = _of_step(record, row, step)
    pairs = np.arange(profiles.shape[1], 0, -1, dtype=float)
    return DistanceProfile(profiles[layer], index, f"step {step}", pairs)


def _of_step(record: Record, row: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """[layer, distance] and [layer], of all layers, kept with the record, as another layer is often asked for next."""
    key = f"recency of row {row} at step {step}"
    if key not in record.memo:
        h = stream(record, row, step)[0]
        profiles = torch.stack([_by_distance(each) for each in h])
        n = h.shape[1]
        far = profiles[:, [d - 1 for d in range(1, n) if 2 * d >= n]]
        index = profiles[:, 0] - far.mean(-1) if n > 1 else torch.full((len(h),), torch.nan)
        record.memo[key] = (profiles.numpy(), index.numpy())
    return record.memo[key]


def _by_distance(h: Float[Tensor, "position d_model"]) -> Float[Tensor, " distance"]:
    """Mean cosine at each distance: the autocorrelation of the unit vectors, by Fourier transform."""
    n = len(h)
    power = torch.fft.rfft(torch.nn.functional.normalize(h.double(), dim=-1), n=2 * n, dim=0).abs().square().sum(-1)
    return (torch.fft.irfft(power, n=2 * n)[1:n] / torch.arange(n - 1, 0, -1)).float()


def noise_of(record: Record, row: int, step: int) -> float | None:
    """The share of the generated positions of a row that are masked at a step; None where noise is undefined."""
    if record.canvas is None or mask_id(record) is None:
        return None
    mask = mask_id(record)
    generated = record.canvas[0, row] == mask
    return float((record.canvas[step, row][generated] == mask).float().mean()) if bool(generated.any()) else None

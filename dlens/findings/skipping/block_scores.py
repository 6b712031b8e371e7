"""The numbers by which rules rank blocks: cosine or CKA of what enters and leaves, the angle over several blocks."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dlens.findings.layers.profile import MASK_RATES, Profile, profile
from dlens.findings.scores.batches import batched, masked_rows, rng, token_rows
from dlens.measures import CKA, Cosine
from dlens.tracing.chain import Trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["angle", "angular_distances", "block_similarity", "consecutive"]


def block_similarity(source: Profile | Trace, rule: str, prompts: Any, batch_size: int, seed: int) -> list[float]:
    """By layer the cosine or CKA that a rule compares, from a profile or by making one.

    Raises:
        ValueError: the profile does not hold it.
    """
    measure = CKA() if rule == "cka" else Cosine()
    data = source
    if not isinstance(data, Profile):
        data = profile(data, prompts, measures=[measure], batch_size=batch_size, seed=seed)
    if measure.key not in data.measures:
        raise ValueError(
            f"rule={rule!r} with a profile that holds {', '.join(data.measures)}; expected {measure.key!r} in it; pass "
            f"the model, or profile it with measures=[dlens.{type(measure).__name__}()]"
        )
    if rule == "cka":
        return consecutive(data.measures["cka"])
    return data.pooled("cosine", "cosine").values.tolist()


def consecutive(cka: xr.Dataset) -> list[float]:
    """By layer the CKA with the layer before, over all noise levels together; NaN for the first.

    HSIC terms are averaged before the ratio, as within a noise level.
    """
    terms, n = cka["hsic_all"], cka["n_all"]
    cells = list(n.dims)
    mean = (terms.where(n > 0, 0) * n).sum(cells, skipna=False) / n.sum(cells)
    hsic = mean.transpose("layer", "layer_b").values
    norms = np.sqrt(np.where(np.diag(hsic) > 0, np.diag(hsic), nan))
    return [nan, *(np.diag(hsic, 1) / (norms[:-1] * norms[1:])).tolist()]


def angular_distances(trace: Trace, n: int, texts: Any = None, *, batch_size: int = 8, seed: int = 0) -> list[float]:
    """Angular distance between what enters block l and what leaves block l + n - 1, for every l.

    d(l) = mean of arccos(cos(resid_pre of l, resid_post of l + n - 1)) / pi (Gromov et al., arXiv
    2403.17887). As there, an autoregressive model is read at the last token of each
    text. Where attention goes both ways the last token is nothing special: a diffusion model reads
    each text at the mask rates of `dlens.profile`, and every position counts.

    Args:
        trace: the model.
        n: how many blocks in a row.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        batch_size: texts a forward.
        seed: chooses the masked tokens.

    Returns:
        n_layers - n + 1 distances, from 0 (the same direction) to 1 (the opposite one).

    Examples:
        >>> import dlens
        >>> len(angular_distances(dlens.trace("trio/ar"), 3, ["Once upon a time"]))
        14
    """
    rows = token_rows(trace.model, calibration_texts() if texts is None else texts)
    mask = trace.model.family.mask_token_id if trace.target.has_noise else None
    if mask is not None:
        rows = masked_rows(rows, MASK_RATES, mask, rng(seed))
    chain = trace.capture("resid_pre").capture("resid_post", layers=-1)
    total = torch.zeros(trace.model.n_layers - n + 1, dtype=torch.float64)
    count = 0
    for part in batched(rows, batch_size):
        record = chain.forward(part)
        counted = _counted(record, mask is not None)
        stream = torch.cat([record["resid_pre"], record["resid_post"]])
        total += (angle(stream[:-n], stream[n:]) * counted).sum((1, 2))
        count += int(counted.sum())
    return (total / count).tolist()


def angle(a: Float[Tensor, "*rest d_model"], b: Float[Tensor, "*rest d_model"]) -> Float[Tensor, "*rest"]:
    """Angle between vectors in units of pi, in float64.

    Examples:
        >>> angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])).item()
        0.5
    """
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)
    return cosine.clamp(-1, 1).arccos() / torch.pi


def _counted(record: Record, everywhere: bool) -> Float[Tensor, "batch position"]:
    """1 where a position counts."""
    if everywhere:
        return (~record.is_pad).double()
    counted = torch.zeros(record.is_pad.shape, dtype=torch.float64)
    counted[:, -1] = 1  # prompts are padded on the left
    return counted

"""How similar what leaves each block is to what enters it, as a profile has it."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from dlens.findings.layers.profile import Profile, profile
from dlens.measures import CKA, Cosine
from dlens.tracing.chain import Trace

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["block_similarity", "consecutive"]


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

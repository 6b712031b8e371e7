"""When features come and go over the steps of a denoising run, and how much steps share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.checks import refuse, require_word
from dlens.features.autoencoder import SparseAutoencoder
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["OVERLAPS", "feature_steps", "overlap"]

OVERLAPS = ("jaccard", "weighted", "cosine")


def overlap(
    a: Float[Tensor, "*rows feature"], b: Float[Tensor, "*rows feature"], kind: str = "jaccard"
) -> Float[Tensor, "*rows"]:
    """How much two sets of features share; 1 is the same, NaN where neither has any.

    Args:
        a, b: features, at least 0.
        kind: "jaccard" of the sets that are above 0, "weighted" sum of the smaller / sum of the larger, or "cosine".

    Examples:
        >>> a, b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 2.0, 2.0])
        >>> [round(float(overlap(a, b, kind)), 2) for kind in OVERLAPS]
        [0.33, 0.4, 0.63]
    """
    require_word("overlap", kind, OVERLAPS)
    if kind == "cosine":
        return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    if kind == "jaccard":
        a, b = (a > 0).float(), (b > 0).float()
    return torch.minimum(a, b).sum(-1) / torch.maximum(a, b).sum(-1)


def feature_steps(record: Record, sae: SparseAutoencoder, *, kind: str = "jaccard") -> xr.Dataset:
    """When the features of a denoising run come and go, and what two steps share.

    After the order analysis of DLM-Scope (arXiv 2602.05859). Only generated positions count.

    Args:
        record: of a generation of a diffusion model that captured the site of the autoencoder at every step.
        sae: the autoencoder.
        kind: how two steps are compared: "jaccard", "weighted" or "cosine", see `overlap`.

    Returns:
        Over step and step_b: "overlap", the mean over positions of what they share. Over step: "stability", the mean
        overlap with the step before of the positions that are masked at both, and "drift", 1 - the mean overlap with
        the step at which a position was decoded first, of the positions that were decoded before. Over feature: "rate",
        the share of positions and steps at which it is active; "positions", at how many it ever is; and, averaged
        over these, "first" and "last", the steps at which it comes and goes, "masked" and "decoded", the shares of
        masked and decoded steps at which it is active.

    Raises:
        ValueError: another run, or steps that were not captured.
        KeyError: the site was not captured.

    Examples:
        >>> import dlens
        >>> record = dlens.trace("trio/diffusion").capture("resid_post", layers=8).generate("Once upon a time", 6)
        >>> data = dlens.feature_steps(record, dlens.load_sae("trio/diffusion"))
        >>> data["overlap"].shape, float(data["overlap"][2, 2]), data["first"].dims
        ((6, 6), 1.0, ('feature',))
    """
    import xarray as xr

    require_word("kind", kind, OVERLAPS)
    features, masked = _encoded(record, sae)
    shared, both = _shared(features, kind), masked[:-1] & masked[1:]
    stability = [np.nan, *(float(shared[n + 1, n][where].nanmean()) for n, where in enumerate(both))]
    data = {
        "overlap": (("step", "step_b"), shared.nanmean(-1).numpy()),
        "stability": ("step", np.array(stability)),
        "drift": ("step", _drift(shared, ~masked)),
        **{name: ("feature", values.numpy()) for name, values in _lives(features > 0, masked).items()},
    }
    return xr.Dataset(
        data,
        {"step": range(len(features)), "step_b": range(len(features)), "feature": range(sae.n_features)},
        {
            "estimator": f"{kind} overlap of the features above 0",
            "pooling": "mean over generated positions",
            "positions": "generated, and no padding",
            "site": str(sae.site),
            "model": record.model,
            "n": masked.shape[1],
        },
    )


def _encoded(record: Any, sae: Any) -> tuple[Float[Tensor, "step n feature"], Bool[Tensor, "step n"]]:
    """Features of the generated positions, and which of them are masked when each step starts."""
    if not isinstance(record, Record) or record.canvas is None:
        refuse("record", record, "the record of a denoising run", "pass what .generate of a diffusion model returned")
    if not isinstance(sae, SparseAutoencoder) or sae.site is None:
        refuse("sae", sae, "an autoencoder that knows its site", "pass dlens.load_sae(...), or give it site=")
    values, coords = record[sae.site], record.coords(sae.site)
    if coords["step"] != list(range(record.n_steps)) or len(coords["position"]) != record.tokens.shape[1]:
        raise ValueError(
            f"{sae.site} was captured at {len(coords['step'])} of {record.n_steps} steps; expected all of them, as "
            f"steps are compared; capture it without steps="
        )
    changed = record.committed_at >= 0
    if not bool(changed.any()):
        refuse("record", record, "a run that filled a mask", "generate at least one token")
    # The mask is what stood first where something changed.
    mask = record.canvas[0][changed][0]
    generated = (record.canvas[0] == mask) & ~record.is_pad
    features = torch.stack([sae.encode(step[generated]) for step in values])
    return features, record.canvas[:, generated] == mask


def _shared(features: Float[Tensor, "step n feature"], kind: str) -> Float[Tensor, "step step_b n"]:
    return torch.stack([torch.stack([overlap(a, b, kind) for b in features]) for a in features])


def _drift(shared: Float[Tensor, "step step_b n"], decoded: Bool[Tensor, "step n"]) -> np.ndarray:
    """1 - overlap with the first step at which a position is decoded, of those that were decoded before."""
    first = torch.where(decoded.any(0), decoded.int().argmax(0), len(decoded))
    drift = np.full(len(decoded), np.nan)
    for step in range(len(decoded)):
        old = (first < step).nonzero()[:, 0]
        drift[step] = 1 - float(shared[step, first[old], old].nanmean())
    return drift


def _lives(active: Bool[Tensor, "step n feature"], masked: Bool[Tensor, "step n"]) -> dict[str, Tensor]:
    """When each feature comes and goes, averaged over the positions where it ever is active."""
    ever = active.any(0)
    positions = ever.sum(0)
    steps = len(active)
    first = active.int().argmax(0).double()
    last = steps - 1 - active.flip(0).int().argmax(0).double()

    def averaged(values: Float[Tensor, "n feature"]) -> Float[Tensor, " feature"]:
        counted = torch.where(ever & ~values.isnan(), values, 0).sum(0)
        return counted / (ever & ~values.isnan()).sum(0)

    shares = {
        name: (active & where[..., None]).sum(0).double() / where.sum(0)[:, None]
        for name, where in (("masked", masked), ("decoded", ~masked))
    }
    return {
        "rate": active.double().mean((0, 1)),
        "positions": positions,
        "first": averaged(first),
        "last": averaged(last),
        **{name: averaged(share) for name, share in shares.items()},
    }

"""The stream of one run at one step as small arrays: how alike its layers are, and which channels hold its energy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from dlens.findings.layers.profile import CELLS
from dlens.measures.base.pooling import pool
from dlens.measures.cka import hsic
from dlens.ops.base.given import as_index
from dlens.tracing.records.record import Record
from dlens.widgets.sources import spread

__all__ = [
    "CKA_POSITIONS",
    "SimilarityKind",
    "at_layer",
    "by_step",
    "check_row",
    "held_layers",
    "measured_shares",
    "measured_similarity",
    "share_of",
    "similarity",
    "steps_of",
    "stream",
]

SimilarityKind = Literal["cosine", "cka"]
Stream = Float[Tensor, "layer position d_model"]

CKA_POSITIONS = 512


def steps_of(record: Record) -> tuple[int, ...]:
    """The steps at which resid_post was captured at all layers; a run without a step axis has one, 0."""
    kept = record.captured.get("resid_post")
    if kept is None or len(kept.layers) < record.n_layers:
        return ()
    return kept.steps if "step" in kept.dims else (0,)


def check_row(record: Record, row: int, widget: str) -> None:
    """Refuse a record without tokens, and a row that it does not have.

    Raises:
        ValueError, IndexError: in the widget's name.
    """
    if not isinstance(record, Record):
        raise ValueError(
            f"{widget} got {type(record).__name__}; expected a record; pass what .generate, .forward or "
            f"dlens.load_record returned"
        )
    if 0 in record.tokens.shape:
        raise ValueError(
            f"{widget} got {list(record.tokens.shape)} tokens (batch, position); expected some; run it on text"
        )
    if not 0 <= as_index(row, "row") < len(record.tokens):
        raise IndexError(f"row {row} of {len(record.tokens)}; expected 0 to {len(record.tokens) - 1}; give another")


def held_layers(record: Record) -> str:
    """In words what was captured of resid_post."""
    kept = record.captured.get("resid_post")
    return "no resid_post" if kept is None else f"resid_post of layers {', '.join(map(str, kept.layers))}"


def stream(record: Record, row: int, step: int) -> tuple[Stream, list[int]]:
    """What leaves each block at one step, at the positions that are no padding, and which these are.

    Raises:
        ValueError: it was not captured; it says what to capture.
    """
    values, positions = _kept(record, row, step)
    return values.float(), positions


def at_layer(record: Record, row: int, step: int, layer: int) -> Float[Tensor, "position d_model"]:
    """The same at one layer, for less work."""
    return _kept(record, row, step)[0][layer].float()


def _kept(record: Record, row: int, step: int) -> tuple[Tensor, list[int]]:
    if step not in steps_of(record):
        raise ValueError(
            f"resid_post of all layers at step {step} is not in the record, which holds {held_layers(record)}; "
            f"expected all {record.n_layers} layers at that step; add .capture('resid_post', steps=[{step}]) to the "
            f"trace"
        )
    kept = record.captured["resid_post"]
    values = kept.values
    if "step" in kept.dims:
        values = values[kept.steps.index(step)]
    real = [position for position in kept.positions if not bool(record.is_pad[row, position])]
    return values[:, row, [kept.positions.index(position) for position in real]], real


def share_of(h: Float[Tensor, "*places d_model"], channel: int) -> Float[Tensor, "*places"]:
    """A channel's share of each position's energy, h_c^2 / |h|^2; 0 where there is none."""
    energy = torch.linalg.vecdot(h, h).clamp(min=torch.finfo(h.dtype).tiny)
    return h[..., channel].square() / energy


def by_step(record: Record, row: int, layer: int, channel: int) -> list[tuple[int, float]]:
    """A channel's share of a layer's energy at each captured step, over all positions together."""
    found = []
    for step in steps_of(record):
        energy = at_layer(record, row, step, layer).square()
        found.append((step, float(energy[:, channel].sum() / energy.sum())))
    return found


def similarity(h: Stream, kind: SimilarityKind, drop: int | None = None) -> Float[np.ndarray, "layer layer_b"]:
    """How alike every two layers are at one step, over all positions together.

    "cosine": mean over positions t of cos(h[l, t], h[m, t]). "cka": linear, debiased (HSIC1 of Song et al.
    2007), the rows are positions, at most `CKA_POSITIONS` of them, evenly apart; NaN for fewer than four.

    Args:
        h: the stream.
        kind: which.
        drop: a channel that is left out.
    """
    h = h.double()
    if drop is not None:
        h[..., drop] = 0
    if kind == "cosine":
        h = torch.nn.functional.normalize(h, dim=-1)
        return (einsum(h, h, "l n d, m n d -> l m") / h.shape[1]).numpy()
    h = h[:, spread(h.shape[1], CKA_POSITIONS)]
    centred = h - h.mean(1, keepdim=True)
    gram = centred @ centred.mT
    terms = hsic(gram[:, None], torch.ones(1, h.shape[1], 1, dtype=h.dtype))[0, 0]
    own = terms.diagonal()
    norms = torch.where(own > 0, own, torch.nan).sqrt()
    return (terms / norms[:, None] / norms[None]).numpy()


def measured_similarity(
    record: Record, kind: SimilarityKind, drop: int | None = None
) -> Float[np.ndarray, "layer layer_b"] | None:
    """The same from a measure of the run, over all its steps, with that channel left out and no other; else None."""
    for data in record.measures.values():
        if [int(c) for c in data.attrs.get("channels_left_out", [])] != ([] if drop is None else [drop]):
            continue
        if kind == "cka" and "hsic_all" in data:
            return _pooled_cka(data)
        if kind == "cosine" and "cosine" in data and "layer_b" in data["cosine"].dims:
            return pool(data, "cosine", CELLS).values
    return None


def _pooled_cka(data: Any) -> Float[np.ndarray, "layer layer_b"]:
    """HSIC terms are averaged before the ratio, as within a noise level."""
    terms, n = data["hsic_all"], data["n_all"]
    mean = (terms.where(n > 0, 0) * n).sum(list(n.dims)) / n.sum()
    values = mean.transpose("layer", "layer_b").values
    own = np.sqrt(np.where(np.diag(values) > 0, np.diag(values), np.nan))
    return values / own[:, None] / own[None]


def measured_shares(record: Record) -> tuple[list[int], Float[np.ndarray, "layer channel"]] | None:
    """The largest channels and their energy shares by layer, from `Outliers`; None without it."""
    data = next((data for data in record.measures.values() if "energy_share" in data), None)
    if data is None:
        return None
    values = pool(data, "energy_share", CELLS).transpose("layer", "channel").values
    return [int(c) for c in data["channel"].values], values

"""A denoising run as small arrays: what stood at each position at each step, and what else the model thought of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dlens.tracing.records.record import Record
from dlens.widgets.panel import packed

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "POSITION_KINDS",
    "Frames",
    "all_thoughts",
    "check_denoising",
    "first_choices",
    "frames_of",
    "mask_id",
    "piece",
    "thoughts",
    "title",
    "visible",
]

POSITION_KINDS = ("prompt", "generated", "padding")

_UNMEASURED = "Nothing was measured here: padding, after the end of the row, or not computed by this step."
_ADVICE = "measure it: .measure(dlens.TopTokens()), with layers=[-1] for the alternatives alone"


@dataclass(frozen=True)
class Frames:
    """One row of a denoising run.

    Args:
        ids: what went into each step, and last what came out of the run.
        committed: the step of the last change; -1 for prompt, padding, never.
        confidence: the probability of the final token at the step that committed it, NaN where unknown.
        chances: the probability of the likeliest token at every step; NaN where it is unknown.
        entropy: of all tokens at every step, in nats; NaN where it is unknown.
        kind: index into `POSITION_KINDS`.
        noise: share of the generated positions that are masked, per frame.
        computed: which positions each step computed; None is all.
    """

    ids: Int[np.ndarray, "frame position"]
    committed: Int[np.ndarray, " position"]
    confidence: Float[np.ndarray, " position"]
    chances: Float[np.ndarray, "step position"]
    entropy: Float[np.ndarray, "step position"]
    kind: Int[np.ndarray, " position"]
    noise: Float[np.ndarray, " frame"]
    computed: Bool[np.ndarray, "step position"] | None = None

    def left_out(self, step: int, position: int) -> bool:
        """Whether a step reads a position from earlier ones; nothing is computed for the finished text."""
        return self.computed is not None and step < len(self.computed) and not self.computed[step, position]


def check_denoising(record: Any) -> Record:
    """Refuse what is not the record of a denoising run with something in it.

    Raises:
        TypeError, ValueError: it says what to run.
    """
    if not isinstance(record, Record):
        raise TypeError(
            f"Denoising got {type(record).__name__}; expected the record of a denoising run; pass what .generate or "
            f"dlens.load_record returned"
        )
    if record.canvas is None:
        raise ValueError(
            f"Denoising got the record of a {record.kind} run of {record.model}, which has no canvas; expected a "
            f"denoising run; use .generate(...) of a diffusion model"
        )
    if 0 in record.canvas.shape:
        raise ValueError(
            f"Denoising got a canvas of shape {list(record.canvas.shape)} (step, batch, position); expected at least "
            f"one of each; run .generate with a prompt and max_new_tokens=32"
        )
    return record


def mask_id(record: Record) -> int | None:
    """The mask token, read off what stood first where something changed; None where nothing did."""
    assert record.canvas is not None
    changed = record.committed_at >= 0
    return int(record.canvas[0][changed][0]) if bool(changed.any()) else None


def frames_of(record: Record, row: int) -> Frames:
    """The frames of one row.

    Args:
        record: of a denoising run.
        row: which row of its batch.
    """
    assert record.canvas is not None
    ids = np.concatenate([record.canvas[:, row].numpy(), record.tokens[row : row + 1].numpy()])
    committed, pad = record.committed_at[row].numpy(), record.is_pad[row].numpy()
    generated = (ids[0] == mask_id(record)) & ~pad
    kind = np.where(pad, 2, np.where(generated, 1, 0))
    noise = (ids == mask_id(record))[:, generated].mean(1) if generated.any() else np.zeros(len(ids))
    confidence = _confidence(record, row, ids[-1], committed)
    chances, entropy = (_by_step(record, row, name) for name in ("probability", "entropy"))
    computed = None if record.computed is None else record.computed[:, row].numpy()
    return Frames(ids, committed, confidence, chances, entropy, kind, noise, computed)


def _confidence(
    record: Record, row: int, final: Int[np.ndarray, " position"], committed: Int[np.ndarray, " position"]
) -> Float[np.ndarray, " position"]:
    found = np.full(len(final), np.nan)
    last = _last_layer(record, row)
    if last is None:
        return found
    tokens, chances = last["token"].values, last["probability"].values
    for position in np.flatnonzero(committed >= 0):
        at = tokens[committed[position], position] == final[position]
        if at.any():
            found[position] = chances[committed[position], position][at][0]
    return found


def _by_step(record: Record, row: int, name: str) -> Float[np.ndarray, "step position"]:
    """A number of the last layer at every step, of the likeliest token where each has its own; NaN where unknown."""
    last = _last_layer(record, row)
    if last is None or name not in last:
        return np.full((record.n_steps, record.tokens.shape[-1]), np.nan, "f4")
    return last[name].isel(rank=0, missing_dims="ignore").transpose("step", "position").values.astype("f4")


def _last_layer(record: Record, row: int) -> xr.Dataset | None:
    data = _top_tokens(record)
    if data is None or record.n_layers - 1 not in data["layer"].values:
        return None
    return data.sel(layer=record.n_layers - 1, batch=row)


def _top_tokens(record: Record) -> xr.Dataset | None:
    return next((data for data in record.measures.values() if {"token", "probability"} <= set(data.data_vars)), None)


def thoughts(record: Record, row: int, step: int, position: int, layer: int) -> dict[str, Any]:
    """What the model thought of at one place: alternatives at a layer, and the first choice of every layer.

    Args:
        record: of a denoising run.
        row, step, position: where; a step after the last is the last.
        layer: whose alternatives.

    Returns:
        "step"; "alternatives", pairs of text and probability; "lens", triples of layer, text and probability;
        "message", what to measure where nothing is known, else "".
    """
    step = min(step, record.n_steps - 1)
    nothing = {"step": step, "alternatives": [], "lens": []}
    data = _top_tokens(record)
    if data is None:
        return nothing | {"message": f"The record holds no alternatives; {_ADVICE}."}
    here = data.sel(step=step, batch=row, position=position)
    tokens, chances = here["token"].values.tolist(), here["probability"].values.tolist()
    if all(first < 0 for first, *_ in tokens):
        return nothing | {"message": _UNMEASURED}
    layers = here["layer"].values.tolist()
    lens = [[place, piece(record, t[0]), p[0]] for place, t, p in zip(layers, tokens, chances, strict=True)]
    if layer not in layers:
        return nothing | {"lens": lens, "message": f"Layer {layer} was not measured; {_ADVICE}."}
    at = layers.index(layer)
    pairs = [[piece(record, t), p] for t, p in zip(tokens[at], chances[at], strict=True) if t >= 0]
    return {"step": step, "alternatives": pairs, "lens": lens, "message": ""}


def first_choices(record: Record, row: int, step: int) -> dict[str, Any]:
    """The first choice of every layer at every position of a step (the logit lens); after the last step, of the last.

    Returns:
        "step", "layers", "words", and a packed matrix [layer, position] of probabilities with "ids", the index into
        words; nothing where fewer than two layers were measured.
    """
    data, step = _top_tokens(record), min(step, record.n_steps - 1)
    if data is None or data.sizes["layer"] < 2:
        return {}
    here = data.sel(step=step, batch=row).isel(rank=0).transpose("layer", "position")
    words, ids = _indexed(record, here["token"].values)
    of = {"step": step, "layers": here["layer"].values.tolist(), "words": words, "ids": packed(ids)}
    return packed(here["probability"].values.astype("f4")) | of


def all_thoughts(record: Record, row: int) -> dict[str, Any]:
    """What `thoughts` says of every step, position and layer of a row; nothing where nothing was measured.

    Returns:
        "layers", "words", and packed "chances" and "ids", the index into words, [step, layer, position, rank].
    """
    data = _top_tokens(record)
    if data is None:
        return {}
    own = data.sel(batch=row).transpose("step", "layer", "position", "rank")
    words, ids = _indexed(record, own["token"].values)
    chances = packed(own["probability"].values.astype("f4"))
    return {"layers": own["layer"].values.tolist(), "words": words, "ids": packed(ids), "chances": chances}


def _indexed(record: Record, tokens: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The texts of tokens, each once, and which of them stands where; -1 for no token."""
    known, index = np.unique(tokens, return_inverse=True)
    words = [piece(record, token) if token >= 0 else "" for token in known.tolist()]
    return words, np.where(tokens < 0, -1, index.reshape(tokens.shape)).astype("i4")


def piece(record: Record, token: int) -> str:
    """The text of a token, or its number where the record knows no text."""
    return record.pieces.get(int(token), f"[{int(token)}]")


def visible(text: str) -> str:
    """A token's text with the spaces at its ends, tabs and line breaks made visible.

    Examples:
        >>> visible(" fox\\n")
        '·fox⏎'
    """
    inner = text.replace("\n", "⏎").replace("\t", "⇥")
    kept = inner.strip(" ")
    before = len(inner) - len(inner.lstrip(" "))
    return "·" * before + kept + "·" * (len(inner) - before - len(kept)) or "∅"


def title(record: Record) -> str:
    """The model, and what was done to it."""
    done = [entry["words"] for entry in record.plan if entry["op"] not in ("capture", "measure")]
    return f"{record.model}: {'; '.join(done) or 'as it is'}"

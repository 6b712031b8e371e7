"""Vectors with labels: of the rows or the positions of a record, of the prompts of a stream, or given as they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dlens.axes import parse_point
from dlens.checks import quoted, refuse, require_word
from dlens.tracing.records.record import Record
from dlens.tracing.streams.activations import Activations

__all__ = ["WHERE", "Samples", "samples_of"]

WHERE = ("all", "prompt", "generated", "masked", "decoded", "last")


@final
@dataclass(frozen=True)
class Samples:
    """Vectors of each step and layer, and their labels.

    Args:
        values: the vectors.
        there: whether a sample has a vector at a step.
        labels: one a sample.
        group: what must not be split between training and test: the prompt of each sample.
        steps, layers: their numbers.
        has_steps: whether they are of a run of several steps.
        classes: the labels that there are, where they are classes; None where they are numbers.
    """

    values: Float[Tensor, "step layer n d_model"]
    there: Bool[Tensor, "step n"]
    labels: NDArray[Any]
    group: Int[np.ndarray, " n"]
    steps: tuple[int, ...]
    layers: tuple[int, ...]
    has_steps: bool
    classes: NDArray[Any] | None

    def at(self, step: int, layer: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Vectors, labels and groups of one step and layer, by their place."""
        there = self.there[step].numpy()
        return self.values[step, layer].numpy()[there], self.labels[there], self.group[there]


def samples_of(source: Any, labels: Any, at: str, tokens: Any, groups: Any, numbers: bool) -> Samples:
    """Read samples.

    Args:
        source: a record or a stream that captured `at`, or vectors [row, d_model] or [layer, row, d_model].
        labels: of a record [batch], where each row is one sample, the mean over the positions named, or
            [batch, position], where each position is one; of a stream [prompt], each one sample, the mean over its
            rows; else [row]. None and NaN have no label.
        at: the hook point.
        tokens: which positions of a record.
        groups: what each prompt of a record or stream, or each vector, came from; each its own by default.
        numbers: whether labels are numbers, not classes.

    Raises:
        ValueError, KeyError: something that does not fit together.
    """
    given = _labels(labels, numbers)
    if isinstance(source, Record):
        return _of_record(source, given, at, tokens, _groups(groups, len(source.tokens), "prompt"), numbers)
    if isinstance(source, Activations):
        return _of_stream(source, given, at, tokens, _groups(groups, source.header.n_prompts, "prompt"), numbers)
    values = _vectors(source)
    if given.shape != values.shape[1:2]:
        raise ValueError(
            f"labels of shape {given.shape}; expected [{values.shape[1]}], one a vector; pass as many labels as vectors"
        )
    group = _groups(groups, len(given), "vector")
    there = torch.ones(1, len(given), dtype=torch.bool)
    return _labelled(values[None], there, given, group, ((0,), tuple(range(len(values))), False), numbers)


def _labels(labels: Any, numbers: bool) -> NDArray[Any]:
    """Labels as an array of objects or floats, None and NaN for none."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    with suppress(ValueError, TypeError):
        found = np.asarray(labels, dtype=float) if numbers else np.asarray(labels)
        endless = found.dtype.kind == "f" and np.isinf(found).any()
        if found.ndim in (1, 2) and found.size and found.dtype.kind in "biufUSO" and not endless:
            return found
    kind = "numbers" if numbers else "classes"
    refuse("labels", labels, f"{kind}, one a row or [batch, position]", "pass a list, with None where there is none")


def _groups(groups: Any, n: int, what: str) -> Int[np.ndarray, " n"]:
    """What must not be split, as numbers; each by itself where nothing is said."""
    if groups is None:
        return np.arange(n)
    found = np.unique(np.asarray(groups), return_inverse=True)[1]
    if found.shape != (n,):
        refuse("groups", groups, f"[{n}], what each {what} came from", f"pass one for each {what}")
    return found


def _known(labels: NDArray[Any]) -> NDArray[Any]:
    """Where there is a label."""
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    if labels.dtype.kind == "O":
        return np.array([each is not None and each == each for each in labels.ravel()]).reshape(labels.shape)
    return np.ones(labels.shape, bool)


def _vectors(source: Any) -> Float[Tensor, "layer n d_model"]:
    found: Tensor | None = None
    with suppress(TypeError, ValueError, RuntimeError):
        found = torch.as_tensor(source).detach().cpu().float()
    if found is None or found.ndim not in (2, 3) or not found.numel():
        raise ValueError(
            f"source={quoted(source)}; expected a record, or vectors [row, d_model] or [layer, row, d_model]; pass "
            f"what .forward or .generate returned, with the hook point captured"
        )
    return found if found.ndim == 3 else found[None]


def _of_record(
    record: Record, labels: NDArray[Any], at: str, tokens: Any, group: NDArray[Any], numbers: bool
) -> Samples:
    values, dims, coords = record[at], record.dims(at), record.coords(at)
    if dims[-2:] != ("position", "d_model"):
        refuse("at", at, "a hook point of the stream", "capture for example 'resid_post'")
    has_steps, has_layers = "step" in dims, "layer" in dims
    values = values if has_steps else values[None]
    values = (values if has_layers else values[:, None]).float()
    width = values.shape[3]
    # A cached step has NaN where it computed nothing.
    computed = ~values.isnan().all(-1).any(1)
    values = torch.where(computed[:, None, ..., None], values, 0)
    chosen = _chosen(record, tokens, tuple(coords.get("step", [0])))[..., :width] & computed
    rows, axes = len(record.tokens), labels.ndim
    if labels.shape != (rows, record.tokens.shape[1])[:axes]:
        raise ValueError(
            f"labels of shape {labels.shape}; expected [{rows}], one a prompt, or [{rows}, {record.tokens.shape[1]}], "
            f"one a position of record.tokens; pad them on the left as the record is, with None where there is none"
        )
    if axes == 1:
        weight = chosen.float() / chosen.sum(-1, keepdim=True).clamp(min=1)
        vectors = torch.einsum("slbpd,sbp->slbd", values, weight)
        there = chosen.any(-1)
    else:
        vectors, there = values.flatten(2, 3), chosen.flatten(1)
        labels, group = labels[:, :width].reshape(-1), np.repeat(group, width)
    layers = tuple(coords["layer"]) if has_layers else (parse_point(at).layer or 0,)
    return _labelled(vectors, there, labels, group, (tuple(coords.get("step", [0])), layers, has_steps), numbers)


def _of_stream(
    kept: Activations, labels: NDArray[Any], at: str, tokens: Any, group: NDArray[Any], numbers: bool
) -> Samples:
    kept = kept if kept.point == at else kept.select(point=at)
    if not isinstance(tokens, str) or tokens != "all":
        refuse("tokens", tokens, "'all', the rows of a stream that are chosen", "write .select(states='masked')")
    n, shape, run = kept.header.n_prompts, kept.shape, kept.header.kind == "denoising"
    if len(shape) != 2:
        refuse("at", at, "a hook point of the stream", "capture for example 'resid_post'")
    if labels.shape != (n,):
        raise ValueError(
            f"labels of shape {labels.shape}; expected [{n}], one a prompt of the stream; for labels of positions pass "
            f"rows.values with groups=rows.prompt, where rows = kept.read()"
        )
    layers, n_steps = kept.layers or (0,), kept.header.n_steps if run else 1
    sums, counts = torch.zeros(len(layers), n_steps * n, shape[1]), torch.zeros(n_steps * n)
    for parts in kept.by_file():
        place = parts[0].prompt.long() + (n * parts[0].step.long() if run else 0)
        counts += place.bincount(minlength=len(counts))
        for layer, rows in enumerate(parts):
            sums[layer].index_add_(0, place, rows.values.float())
    means = (sums / counts.clamp(min=1)[:, None]).unflatten(1, (n_steps, n)).transpose(0, 1)
    there = (counts > 0).unflatten(0, (n_steps, n))
    steps = [step for step in range(n_steps) if bool(there[step].any())]
    return _labelled(means[steps], there[steps], labels, group, (tuple(steps), layers, run), numbers)


def _labelled(
    values: Tensor,
    there: Tensor,
    labels: NDArray[Any],
    group: NDArray[Any],
    places: tuple[tuple[int, ...], tuple[int, ...], bool],
    numbers: bool,
) -> Samples:
    """The samples that have labels, classes as their places among the sorted classes."""
    kept = _known(labels) & there.any(0).numpy()
    known = labels[kept]
    kinds, place = np.unique(known.astype(str) if known.dtype.kind == "O" else known, return_inverse=True)
    if len(kinds) < 2:
        wanted = "two numbers" if numbers else "two classes"
        refuse("labels", kinds.tolist(), f"at least {wanted}, of samples that are there", "label samples of two kinds")
    where = torch.as_tensor(kept)
    held = (values[:, :, where], there[:, where], known if numbers else place, group[kept])
    return Samples(*held, *places, None if numbers else kinds)


def _chosen(record: Record, tokens: Any, steps: tuple[int, ...]) -> Bool[Tensor, "step batch position"]:
    """Which positions count at each step."""
    real = ~record.is_pad
    if isinstance(tokens, Tensor) and tokens.dtype == torch.bool:
        if tokens.shape != real.shape:
            refuse("tokens", list(tokens.shape), f"{list(real.shape)}, as record.tokens", "pass a bool for each token")
        return (tokens & real).expand(len(steps), -1, -1)
    require_word("tokens", tokens, WHERE)
    last = torch.zeros_like(real)
    last[:, -1] = True
    plain = {"all": real, "prompt": record.is_prompt, "generated": real & ~record.is_prompt, "last": real & last}
    if (word := str(tokens)) in plain:
        return plain[word].expand(len(steps), -1, -1)
    if record.canvas is None or not bool((record.committed_at >= 0).any()):
        refuse("tokens", tokens, "other positions, as this is no denoising run", "pass tokens='all' or 'prompt'")
    mask = record.canvas[0][record.committed_at >= 0][0]
    masked = record.canvas[list(steps)] == mask
    return real & (masked if word == "masked" else ~masked & ~record.is_prompt)

"""The weights that stay as they are: those that write or read chosen channels of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dlens.checks import require_word
from dlens.compression.matrices import Matrix
from dlens.compression.methods.method import Kept
from dlens.compression.recipe import Recipe
from dlens.models.model import Model
from dlens.ops.base.given import as_ints
from dlens.tracing.prepare import target_of
from dlens.tracing.probes.outlier import Calibrated

__all__ = ["kept_weights", "protected_channels"]


def protected_channels(model: Model, protect: Any) -> tuple[int, ...] | None:
    """The channels that a recipe protects; the outlier is found on the shipped text.

    Raises:
        ValueError: no channels of the model, or a model of which nobody said what reads and writes the stream.

    Examples:
        >>> import dlens
        >>> model = dlens.load("trio/diffusion")
        >>> protected_channels(model, [3, 5]), len(protected_channels(model, "outlier"))
        ((3, 5), 1)
    """
    if protect is None:
        return None
    if not all(own.reads and own.writes for own in model.layout.each):
        raise ValueError(
            f"protect= on {model.name}, of which nobody named the modules that read the stream and write it; expected "
            f"reads= and writes= in its Layout; name them, or leave protect out"
        )
    if isinstance(protect, str):
        require_word("protect", protect, ("outlier",), "channels of the stream, or 'outlier'")
        return (Calibrated(model, target_of(model)).outlier()[0],)
    channels = as_ints(protect, "channel")
    outside = [channel for channel in channels if not 0 <= channel < model.d_model]
    if outside or not channels:
        raise ValueError(
            f"protect={list(channels)} on {model.name}; expected channels from 0 to {model.d_model - 1}; give some of "
            f"these, or 'outlier'"
        )
    return channels


def kept_weights(model: Model, recipe: Recipe, matrix: Matrix) -> Kept | None:
    """Which weights of a matrix stay: columns of those that read the stream, rows of those that write it."""
    channels: Sequence[int] = recipe.protect or ()  # pyright: ignore
    if not channels or matrix.layer is None:
        return None
    layout = model.layout.at(matrix.layer)
    reads, writes = matrix.name in layout.reads, matrix.name in layout.writes
    if not (reads or writes):
        return None
    kept = torch.zeros_like(matrix.weight, dtype=torch.bool)
    if reads:
        kept[:, list(channels)] = True
    if writes:
        kept[list(channels)] = True
    return kept

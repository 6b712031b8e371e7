"""One captured point with its axes, as a record holds it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Captured"]


@dataclass
class Captured:
    """One captured point.

    Args:
        values: the tensor, on the CPU.
        dims: its axis names.
        layers, steps: the layers and steps it holds (empty where it has no such axis).
        positions: the columns of the batch it holds.
    """

    values: Tensor
    dims: tuple[str, ...]
    layers: tuple[int, ...]
    steps: tuple[int, ...]
    positions: tuple[int, ...]

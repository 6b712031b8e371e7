"""Measures of records of format 1, which dlens 0.1 wrote: values among the tensors, labels in record.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["measures_of_format_1"]


def measures_of_format_1(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, xr.Dataset]:
    """The measures of a record of format 1.

    Args:
        described: key -> "dims" of each variable, "coords" and "attrs", as record.json has them.
        tensors: what tensors.safetensors holds; a variable is "measures/KEY/VARIABLE".
    """
    return {key: _dataset(key, entry, tensors) for key, entry in described.items()}


def _dataset(key: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> xr.Dataset:
    import xarray as xr

    arrays = {name: (dims, tensors[f"measures/{key}/{name}"].numpy()) for name, dims in entry["dims"].items()}
    coords = {name: (dims, values) for name, (dims, values) in entry["coords"].items()}
    return xr.Dataset(arrays, coords=coords, attrs=entry["attrs"])

"""Labelled arrays as JSON: readable anywhere, and nothing is unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["dataset_from_json", "dataset_to_json"]


def dataset_to_json(dataset: xr.Dataset) -> dict[str, Any]:
    """A dataset as plain lists; NaN and infinity, which JSON lacks, as None and as text."""
    return {
        "attrs": dict(dataset.attrs),
        "coords": {str(name): _array_to_json(array) for name, array in dataset.coords.items()},
        "variables": {str(name): _array_to_json(array) for name, array in dataset.data_vars.items()},
    }


def dataset_from_json(entry: dict[str, Any]) -> xr.Dataset:
    """The dataset that `dataset_to_json` wrote.

    Examples:
        >>> import xarray as xr
        >>> data = xr.Dataset({"cosine": ("layer", [0.5, float("nan"), float("inf")])}, attrs={"n": 3})
        >>> dataset_from_json(dataset_to_json(data)).identical(data)
        True
    """
    import xarray as xr

    variables = {name: _array_from_json(array) for name, array in entry["variables"].items()}
    coords = {name: _array_from_json(array) for name, array in entry["coords"].items()}
    return xr.Dataset(variables, coords, entry["attrs"])


def _array_to_json(array: xr.DataArray) -> dict[str, Any]:
    return {"dims": list(array.dims), "dtype": str(array.dtype), "data": _plain(array.values.tolist())}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return str(value) if value in (float("inf"), float("-inf")) else value


def _array_from_json(entry: dict[str, Any]) -> tuple[list[str], Any]:
    import numpy as np

    dtype = str if entry["dtype"].startswith(("<U", "object")) else entry["dtype"]
    return entry["dims"], np.array(entry["data"], dtype=dtype)

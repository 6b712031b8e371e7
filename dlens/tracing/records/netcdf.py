"""One measure as a netCDF file, which any reader opens; what netCDF cannot hold comes back all the same."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_dataset", "write_dataset"]

_EXACT = "dlens"
"""The attribute that keeps, as JSON, types and attributes as they were: netCDF-3 has no bool, None, list or int64."""
_INT = np.iinfo(np.int32)
_WHOLE = 2**53
"""Up to here every whole number is a number of netCDF-3, which has no larger type than float64."""


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF-3.

    Args:
        dataset: its attributes may be anything that JSON holds.
        path: of the file.

    Raises:
        ValueError: complex numbers, which netCDF has not.

    Examples:
        >>> import tempfile, xarray as xr
        >>> data = xr.Dataset({"n": ("state", np.array([2, 1]))}, {"state": ["prompt", "masked"]}, {"drop": [None, 7]})
        >>> path = Path(tempfile.mkdtemp()) / "counts.nc"
        >>> write_dataset(data, path)
        >>> read_dataset(path).identical(data), read_dataset(path)["n"].dtype
        (True, dtype('int64'))
        >>> xr.load_dataset(path, engine="scipy")["n"].sel(state="masked").item()
        1
    """
    import xarray as xr

    _refuse_complex(dataset)
    exact = {
        "attrs": _plain(dataset.attrs),
        "coords": [str(name) for name in dataset.coords],
        "variables": {str(name): _described(array) for name, array in dataset.variables.items()},
    }
    # netCDF-3 has no axis of length 0 beside its first; what holds no value is in the description alone.
    arrays = {name: (array.dims, _held(array.values)) for name, array in dataset.variables.items() if array.size}
    coords = {name: arrays.pop(name) for name in dataset.coords if name in arrays}
    written = xr.Dataset(arrays, coords, _readable(exact["attrs"]) | {_EXACT: json.dumps(exact)})
    written.to_netcdf(path, engine="scipy")


def read_dataset(path: Path) -> xr.Dataset:
    """The dataset that `write_dataset` wrote, in memory.

    Raises:
        ValueError: the file is damaged, or something else wrote it.
    """
    import xarray as xr

    try:
        found = xr.load_dataset(path, engine="scipy")
        exact = json.loads(found.attrs[_EXACT])
        arrays = {name: _restored(name, entry, found) for name, entry in exact["variables"].items()}
        coords = {name: arrays.pop(name) for name in exact["coords"]}
        return xr.Dataset(arrays, coords, exact["attrs"])
    # What scipy makes of bytes that are not netCDF can be any error.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged ({error}); expected what record.save wrote; save the record again"
        ) from error


def _refuse_complex(dataset: xr.Dataset) -> None:
    if found := [str(name) for name, array in dataset.variables.items() if array.dtype.kind == "c"]:
        raise ValueError(
            f"a measure with complex numbers in {', '.join(found)}; expected real ones, as netCDF has no others; keep "
            f"the real and the imaginary part apart, as .real and .imag"
        )


def _described(array: xr.Variable) -> dict[str, Any]:
    shape = [int(size) for size in array.shape]
    described = {"dims": list(array.dims), "shape": shape, "dtype": str(array.dtype), "attrs": _plain(array.attrs)}
    # Other readers see the nearest number; this one reads what it was.
    return described | ({"values": array.values.tolist()} if _is_large(array.values) else {})


def _is_large(values: np.ndarray) -> bool:
    within = values.dtype.kind not in "iu" or not values.size or -_WHOLE <= values.min() <= values.max() <= _WHOLE
    return not within


def _restored(name: str, entry: dict[str, Any], found: xr.Dataset) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    if "values" in entry:
        values = np.array(entry["values"], entry["dtype"])
    else:
        values = np.empty(entry["shape"]) if 0 in entry["shape"] else found[name].values
    return entry["dims"], values.reshape(entry["shape"]).astype(entry["dtype"]), entry["attrs"]


def _held(values: np.ndarray) -> np.ndarray:
    """The values in a type of netCDF-3 that holds each of them exactly."""
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.int8)
    if kind in "iu":
        fits = values.size == 0 or (values.min() >= _INT.min and values.max() <= _INT.max)
        return values.astype(np.int32 if fits else np.float64)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _readable(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes as text and numbers, for other readers."""
    from scipy.io import netcdf_file

    # scipy sets attributes on its file object, where these would overwrite its own.
    taken = dir(netcdf_file(io.BytesIO(), "w"))
    return {name: _text_or_number(value) for name, value in attrs.items() if name not in taken}


def _text_or_number(value: Any) -> str | int | float:
    if isinstance(value, (str, float)) or type(value) is int and _INT.min <= value <= _INT.max:
        return value
    return json.dumps(value)


def _plain(value: Any) -> Any:
    """Lists and numbers of Python, which JSON holds."""
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value

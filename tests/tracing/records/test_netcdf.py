"""Every dataset comes back from netCDF as it was: values, types, labels and attributes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dlens
from dlens import measures
from dlens.tracing.records.netcdf import read_dataset, write_dataset
from tests.refusing import assert_three_parts
from tests.tracing.plain import PROMPTS

MEASURES = [
    kind
    for kind in vars(measures).values()
    if inspect.isclass(kind) and issubclass(kind, measures.Measure) and not inspect.isabstract(kind)
]


def assert_same(data: xr.Dataset, path: Path) -> None:
    """Written, read, and written again, nothing changes."""
    for _ in range(2):
        write_dataset(data, path)
        again = read_dataset(path)
        xr.testing.assert_identical(again, data)
        assert [(name, array.dtype) for name, array in again.variables.items()] == [
            (name, array.dtype) for name, array in data.variables.items()
        ]
        assert [type(value) for value in again.attrs.values()] == [type(value) for value in data.attrs.values()]
        data = again


def _made(kind: Any) -> dlens.Measure:
    return kind() if kind is not measures.Features else kind(sae=dlens.load_sae("trio/diffusion"))


@pytest.mark.parametrize("run", ["forward", "denoising", "decoding"])
def test_every_measure_of_every_run(run: str, tmp_path: Path) -> None:
    name = "trio/ar" if run == "decoding" else "trio/diffusion"
    # Attention weights are given by eager attention alone; decoding has one order.
    kinds = [kind for kind in MEASURES if run != "decoding" or kind is not measures.CommitOrder]
    trace = dlens.trace(dlens.load(name, attn_implementation="eager")).skip([3], part="mlp").measure(*map(_made, kinds))
    record = trace.forward(PROMPTS) if run == "forward" else trace.generate(PROMPTS, 3)
    assert len(record.measures) == len(kinds) >= 9
    for key, data in record.measures.items():
        assert_same(data, tmp_path / f"{key}.nc")


@pytest.mark.parametrize("kind", ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))])
def test_whole_numbers_keep_their_type(kind: str, tmp_path: Path) -> None:
    assert_same(xr.Dataset({"n": ("layer", np.array([0, 1]).astype(kind))}), tmp_path / "n.nc")


def test_numbers_that_netcdf_has_no_type_for(tmp_path: Path) -> None:
    whole, halves = np.array([2**31, -1, 2**53]), np.array([0.5, 65504], np.float16)
    data = xr.Dataset({"n": ("layer", whole), "half": ("row", halves), "one": 3, "true": True})
    assert_same(data, tmp_path / "n.nc")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_numbers_that_are_not_finite(kind: str, tmp_path: Path) -> None:
    values = np.array([np.nan, np.inf, -np.inf, -0.0, np.finfo(kind).tiny]).astype(kind)
    assert_same(xr.Dataset({"x": ("layer", values)}), tmp_path / "x.nc")
    assert read_dataset(tmp_path / "x.nc")["x"].values.tobytes() == values.tobytes()


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (0, 0)])
def test_arrays_without_values(shape: tuple[int, int], tmp_path: Path) -> None:
    data = xr.Dataset({"x": (("step", "layer"), np.zeros(shape))}, {"step": np.zeros(shape[0], int)})
    assert_same(data, tmp_path / "x.nc")


def test_text(tmp_path: Path) -> None:
    coords = {"state": ["prompt", "masked", ""], "label": ("state", np.array(["é", "", "a b"], dtype=object))}
    assert_same(xr.Dataset({"n": ("state", [1, 2, 3])}, coords), tmp_path / "n.nc")
    assert xr.load_dataset(tmp_path / "n.nc")["state"].values.tolist() == ["prompt", "masked", ""]


def test_attributes_that_netcdf_has_no_place_for(tmp_path: Path) -> None:
    attrs = {
        "flag": True,
        "none": None,
        "empty": [],
        "nested": [[1, "a"], [None, 0.1]],
        "by_name": {"a": [1]},
        "large": 2**40,
        "text": "é\0",
        "nothing": "",
        "n": 3,
        "share": 0.1,
        # Names that mean something to scipy and to xarray.
        "mode": "r",
        "variables": 3,
        "coordinates": "state",
    }
    data = xr.Dataset({"x": ("step", [1.0, 2.0], {"units": "days since 2000-01-01", "dtype": "bool"})}, attrs=attrs)
    assert_same(data, tmp_path / "x.nc")
    opened = xr.load_dataset(tmp_path / "x.nc")
    assert [opened.attrs[name] for name in ("flag", "nested", "n", "share")] == [
        "true",
        '[[1, "a"], [null, 0.1]]',
        3,
        0.1,
    ]
    assert opened["x"].values.tolist() == [1.0, 2.0]


def test_numbers_of_numpy_in_attributes_become_those_of_python(tmp_path: Path) -> None:
    data = xr.Dataset(
        {"x": ("step", [1.0])}, attrs={"n": np.int64(3), "at": np.array([1, 2]), "pair": (1, np.float32(2))}
    )
    write_dataset(data, tmp_path / "x.nc")
    assert read_dataset(tmp_path / "x.nc").attrs == {"n": 3, "at": [1, 2], "pair": [1, 2.0]}


@pytest.mark.parametrize(
    "values", [[2**53 + 1, 0], [-(2**63), 2**63 - 1], np.array([2**64 - 1, 0], np.uint64)], ids=repr
)
def test_large_whole_numbers_come_back_the_same(values: Any, tmp_path: Path) -> None:
    assert_same(xr.Dataset({"n": ("layer", np.array(values))}), tmp_path / "n.nc")


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    data = xr.Dataset({"real": ("layer", [1.0]), "both": ("layer", [1j])})
    with pytest.raises(ValueError) as caught:
        write_dataset(data, tmp_path / "x.nc")
    assert_three_parts(str(caught.value), "a measure with complex numbers in both")
    assert not list(tmp_path.iterdir())


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.nc"
    write_dataset(xr.Dataset({"x": ("step", np.arange(100.0))}, {"step": range(100)}, {"n": 3}), path)
    whole = path.read_bytes()
    for length in (0, 3, 40, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match="x.nc is damaged .*; expected what record.save wrote; save the record again"
        ):
            read_dataset(path)
    xr.Dataset({"x": ("step", [1.0])}).to_netcdf(path, engine="scipy")
    with pytest.raises(ValueError, match="damaged"):
        read_dataset(path)

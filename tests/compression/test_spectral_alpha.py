"""Exponents by layer and matrix, whatever the modules are called and however they keep their weights."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dlens
from dlens.compression.spectra import alpha_peak, effective_rank, eigenvalues, hill
from tests.models.conftest import build
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked
from tests.untouched import untouched

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj"]
MATRICES = [*(f"self_attn.{name}" for name in LLAMA), "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def found_in(module: Any, **settings: Any) -> Any:
    return dlens.spectral_alpha(dlens.load(module, verify=False), **settings)


def assert_same(found: Any, expected: Any) -> None:
    for name, values in expected.data_vars.items():
        np.testing.assert_array_equal(found[name].values, values.values, name)


def test_numbers_are_those_of_each_matrix() -> None:
    model = dlens.load(build("llama"), verify=False)
    with untouched(model):
        found = dlens.spectral_alpha(model)
    assert list(found["matrix"].values) == MATRICES and list(found["layer"].values) == [0, 1, 2, 3]
    assert found.attrs["n"] == 28 and found.attrs["left_out"] == [] and found.attrs["model"] == model.name
    for layer, path in ((0, "self_attn.k_proj"), (3, "mlp.down_proj")):
        weight = model.blocks[layer].get_submodule(path).weight
        spectrum = eigenvalues(weight)
        expected = (*alpha_peak(spectrum), hill(spectrum), effective_rank(weight))
        cell = found.sel(layer=layer, matrix=path)
        assert [float(cell[name]) for name in ("alpha", "ks", "hill", "effective_rank")] == list(expected)
    assert 10 < found["effective_rank"].min() and found["effective_rank"].max() <= 32


def test_sub_blocks_are_taken_unless_one_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def seen(weight: torch.Tensor, farms: bool, seed: int) -> torch.Tensor:
        asked.append((farms, seed))
        return torch.arange(1.0, 9)

    monkeypatch.setattr("dlens.compression.spectral_alpha.eigenvalues", seen)
    module = build("llama")
    assert "FARMS" in found_in(module).attrs["eigenvalues"]
    assert "FARMS" not in found_in(module, farms=False, seed=7).attrs["eigenvalues"]
    assert asked == [(True, 0)] * 28 + [(False, 7)] * 28


def test_the_layers_of_gpt2_are_read_as_linear_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Small enough for some sub-blocks of many to be drawn, which are others in a matrix that lies on its side.
    monkeypatch.setattr("dlens.compression.spectra._SIDE", 8)
    monkeypatch.setattr("dlens.compression.spectra._MOST_BLOCKS", 5)
    module = build("gpt2")
    found = found_in(module)
    paths = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert list(found["matrix"].values) == paths and found.attrs["n"] == 16 and found.attrs["left_out"] == []
    weight = module.transformer.h[2].mlp.c_fc.weight.T
    assert weight.shape == (128, 32)
    assert float(found["alpha"].sel(layer=2, matrix="mlp.c_fc")) == alpha_peak(eigenvalues(weight))[0]


class Packed(nn.Module):
    """A layer whose weight is codes."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 32, 32
        self.register_buffer("codes", torch.zeros(32, 32, dtype=torch.int8))


class Grouped(nn.Module):
    """Experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.zeros(2, 32, 48))


def test_what_is_left_out_is_named() -> None:
    module = build("llama")
    model = dlens.load(module, verify=False)
    blocks = module.model.layers
    blocks[0].self_attn.k_proj = Packed()
    blocks[1].mlp.up_proj = Grouped()
    blocks[2].mlp.down_proj.weight = nn.Parameter(blocks[2].mlp.down_proj.weight.data.to(torch.float8_e4m3fn))
    blocks[3].self_attn.v_proj.weight.data[0, 0] = torch.nan
    found = dlens.spectral_alpha(model)
    assert found.attrs["left_out"] == [
        "layer 0 self_attn.k_proj: quantised or packed in a Packed",
        "layer 1 mlp.up_proj.experts: no linear module: (2, 32, 48) of Grouped",
        "layer 2 mlp.down_proj: quantised or packed in float8_e4m3fn",
        "layer 3 self_attn.v_proj: NaN or infinite",
    ]
    missing = {(0, "self_attn.k_proj"), (1, "mlp.up_proj"), (2, "mlp.down_proj"), (3, "self_attn.v_proj")}
    nowhere = found["hill"].isnull().stack(cell=("layer", "matrix"))
    empty = set(nowhere["cell"].values[nowhere.values])
    assert empty == missing and found.attrs["n"] == 4 * 7 - 4


def test_a_model_without_a_matrix_is_refused() -> None:
    module = build("llama")
    model = dlens.load(module, verify=False)
    for block in module.model.layers:
        for part in block.modules():
            if isinstance(part, nn.Linear):
                part.weight = nn.Parameter(part.weight.data.to(torch.float8_e4m3fn))
    with pytest.raises(ValueError) as caught:
        dlens.spectral_alpha(model)
    assert_three_parts(str(caught.value), "layer 0 self_attn.q_proj: quantised or packed in float8_e4m3fn")


def test_offloaded_weights_are_read() -> None:
    from accelerate import cpu_offload

    expected = found_in(build("llama"))
    module = cpu_offload(build("llama"), execution_device=torch.device("cpu"))
    assert module.model.layers[0].mlp.up_proj.weight.is_meta
    assert_same(found_in(module), expected)


def test_wrong_settings_are_refused() -> None:
    for settings, came in (({"farms": "no"}, "farms='no'"), ({"seed": -1}, "seed=-1"), ({"progress": 1}, "progress=1")):
        with unchecked(), pytest.raises(ValueError) as caught:
            dlens.spectral_alpha("trio/ar", **settings)
        assert_three_parts(str(caught.value), came)


def test_the_dataset_can_be_written() -> None:
    file = io.BytesIO(bytes(found_in(build("llama")).to_netcdf(engine="scipy")))
    import xarray as xr

    assert_same(xr.open_dataset(file, engine="scipy"), found_in(build("llama")))

from __future__ import annotations

import numpy as np
import pytest

import dlens
from dlens.findings.layers.compare import relative_depth, third
from tests.models.conftest import build
from tests.unchecked import unchecked

ROWS = [[5, 6, 7, 8, 9], [11, 12, 13]]


@pytest.fixture(scope="module")
def models() -> dict[str, dlens.Model]:
    """Two models of unequal depth."""
    return {name: dlens.load(build("llama", num_hidden_layers=n)) for name, n in (("shallow", 3), ("deep", 5))}


def test_models_share_the_axis_of_layers(models: dict[str, dlens.Model]) -> None:
    table = dlens.compare(models, ROWS)
    data = table.to_xarray()
    assert dict(data.sizes) == {"model": 2, "layer": 5}
    for name, model in models.items():
        rows = dlens.profile(model, ROWS).table()
        for variable in ("cosine", "top_share", "top_channel"):
            own = data[variable].sel(model=name).values
            np.testing.assert_array_equal(own[: len(rows)], [row[variable] for row in rows])
            assert np.isnan(own[len(rows) :]).all()
    assert data["depth"].sel(model="shallow").values[:3].tolist() == [0, 0.5, 1]


def test_models_share_the_axis_of_depth(models: dict[str, dlens.Model]) -> None:
    table = dlens.compare(models, ROWS)
    data, layers = table.by_depth(5), table.to_xarray()["cosine"]
    assert "top_channel" not in data and data["depth"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(data["cosine"].sel(model="deep"), layers.sel(model="deep"))
    shallow = layers.sel(model="shallow").values
    between = [shallow[0], shallow[:2].mean(), shallow[1], shallow[1:3].mean(), shallow[2]]
    np.testing.assert_allclose(data["cosine"].sel(model="shallow"), between)


def test_the_table_is_tidy(models: dict[str, dlens.Model]) -> None:
    rows = dlens.compare(models, ROWS).table()
    assert [(row["model"], row["layer"]) for row in rows] == [("shallow", i) for i in range(3)] + [
        ("deep", i) for i in range(5)
    ]
    assert [row["depth"] for row in rows[3:]] == [0, 0.25, 0.5, 0.75, 1]


def test_profiles_made_before_are_taken(models: dict[str, dlens.Model]) -> None:
    own = {name: dlens.profile(model, ROWS, measures=[dlens.Cosine()]) for name, model in models.items()}
    table = dlens.compare(own)
    assert table.profiles == own and list(table.to_xarray()) == ["cosine"]
    assert repr(table).splitlines()[2] == f"  deep: {own['deep'].model}, 5 layers"
    mixed = dlens.compare({"deep": models["deep"], "shallow": own["shallow"]}, ROWS)
    assert mixed.to_xarray()["top_share"].sel(model="shallow").isnull().all()
    assert mixed.by_depth()["top_share"].sel(model="shallow").isnull().all()


def test_one_block_is_at_depth_zero() -> None:
    assert relative_depth(1).tolist() == [0]


def test_models_are_needed() -> None:
    with pytest.raises(ValueError, match="expected names with models"):
        dlens.compare({})
    with unchecked(), pytest.raises(ValueError, match="compare got 'trio/ar'; expected names with models"):
        dlens.compare("trio/ar")  # pyright: ignore


def test_profiles_of_other_inputs_are_refused(models: dict[str, dlens.Model]) -> None:
    clean, masked = (dlens.profile(models["deep"], ROWS, inputs) for inputs in ("clean", "masked"))
    with pytest.raises(ValueError, match="profiles of different inputs .*; expected the same for each; profile"):
        dlens.compare({"a": clean, "b": masked})
    with pytest.raises(ValueError, match="with inputs='masked' as the models that are still to be profiled"):
        dlens.compare({"a": clean, "b": models["shallow"]}, ROWS)


@pytest.mark.parametrize(("n_layers", "blocks"), [(1, 1), (3, 1), (7, 2), (16, 5), (32, 10)])
def test_a_third_leaves_out_the_first_block(n_layers: int, blocks: int) -> None:
    assert third(n_layers) == blocks

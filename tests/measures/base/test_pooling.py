from typing import Any

import numpy as np
import pytest
import xarray as xr

from dlens.measures import Cosine, Outliers, pool
from tests.measures.runs import SPANS, assert_close, observe, random_run
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked


def test_pools_by_the_positions_in_each_cell() -> None:
    data = observe(Cosine(), random_run(SPANS[0], skipped=True))
    cosine, n = np.nan_to_num(data["cosine"].values), data["n"].values
    assert_close(pool(data, "cosine", ["step", "noise", "state"]), (cosine * n).sum((0, 1, 2)) / n.sum((0, 1, 2)))
    assert pool(data, "cosine", "step").dims == ("noise", "state", "layer")


def test_dimensions_the_dataset_lacks_are_passed_over() -> None:
    span = SPANS[1]
    assert not span.has_noise
    data = observe(Cosine(), random_run(span))
    assert pool(data, "cosine", ["step", "noise", "state"]).dims == ("layer",)


def test_a_cell_without_positions_stays_nan() -> None:
    data = observe(Cosine(), random_run(SPANS[0]))
    pooled = pool(data, "cosine", ["step", "layer"])
    assert (pooled.isnull() == (data["n"].sum(["step", "layer"]) == 0)).all()
    assert pooled.isnull().any()


def test_other_dimensions_are_kept() -> None:
    data = observe(Outliers(top=2), random_run(SPANS[0]))
    assert pool(data, "energy_share", ["noise", "state"]).dims == ("layer", "channel")


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(KeyError, match="no variable 'cka' in the dataset; expected one of cosine, n"):
        pool(observe(Cosine(), random_run(SPANS[0])), "cka", "step")


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_objects_are_refused(wrong: Any) -> None:
    cells = xr.Dataset({"cosine": ("step", [0.5, 1.0]), "n": ("step", [3, 1])})
    with unchecked(), pytest.raises(ValueError) as caught:
        pool(wrong, "cosine", "step")
    assert_three_parts(str(caught.value), "dataset=")
    with unchecked(), pytest.raises(KeyError, match="; expected one of cosine, n;"):
        pool(cells, wrong, "step")
    if wrong != "x":
        with unchecked(), pytest.raises(ValueError) as caught:
            pool(cells, "cosine", wrong)
        assert_three_parts(str(caught.value), "dims=")

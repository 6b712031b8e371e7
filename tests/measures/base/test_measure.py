from dataclasses import replace

import pytest
import torch

from dlens.measures import CosinePairs, Measure, Norms, Visit
from tests.measures.base.test_arrays import CELLS
from tests.measures.runs import SPANS


def test_the_key_is_the_class_name_in_snake_case_or_the_name_given() -> None:
    assert CosinePairs().key == "cosine_pairs" and CosinePairs(name="pairs").key == "pairs"


def test_cells_unfold_into_noise_and_state() -> None:
    cells = torch.arange(30.0)
    split = SPANS[0].split_cells(cells, axis=0)
    assert SPANS[0].cell_dims == ("noise", "state") and split.shape == (10, 3) and split[9, 1] == 28
    assert SPANS[1].cell_dims == ("state",) and SPANS[1].split_cells(cells[:3], axis=-1).shape == (3,)


def test_noise_has_a_coordinate_where_it_is_defined() -> None:
    assert SPANS[0].coords()["noise"][0] == 0.05 and SPANS[0].coords()["noise"][9] == 0.95
    assert "noise" not in SPANS[1].coords()
    assert SPANS[0].coords()["step"] == [0, 1, 2] and SPANS[0].coords()["state"] == ["prompt", "masked", "decoded"]


def test_a_visit_says_where_its_layers_are() -> None:
    visit = Visit(0, range(2, 4), {}, CELLS)
    assert torch.arange(6)[visit.at].tolist() == [2, 3]
    assert replace(visit, layers=range(0, 1)).at == slice(0, 1)


def test_sums_of_two_runs_add_up() -> None:
    one, two = ({"n": torch.tensor([value, 5.0])} for value in (1.0, 2.0))
    assert Norms().merge(one, two)["n"].tolist() == [3, 10]


def test_a_measure_without_points_cannot_be_made() -> None:
    class Nothing(Measure):
        def start(self, span): ...
        def update(self, sums, visit): ...
        def result(self, sums, span): ...

    with pytest.raises(TypeError, match="points"):
        Nothing()  # type: ignore[abstract]

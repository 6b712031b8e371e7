"""A unit goes to another process with all that it needs, and each model once."""

import pickle
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import dlens
from dlens.models.model import Model
from dlens.workers.store import Store
from dlens.workers.unit import Models, Packed, Packer, Unit
from tests.reference import shallow
from tests.workers.toys import board_in


def layers(*models: Model) -> list[int]:
    return [model.n_layers for model in models]


def packed(board, unit: Unit) -> Packed:
    return pickle.loads(board.unit(unit.name(board)).read_bytes())


def test_models_are_written_once_and_loaded_once(tmp_path: Path) -> None:
    ar, diffusion = dlens.load("trio/ar"), dlens.load("trio/diffusion")
    board = board_in(tmp_path)
    packer = Packer(board)
    used = [(ar,), (ar, diffusion), (diffusion,)]
    units = [Unit({"u": i}, partial(layers, *models), "") for i, models in enumerate(used)]
    for unit in units:
        packer.write(unit)
    assert len(list(board.models.iterdir())) == 2
    assert max(len(packed(board, unit).compute) for unit in units) < 1000
    assert packer.model_bytes == sum(p.nbytes for p in ar.module.parameters())
    held = Models(board.models)
    assert [held.function(packed(board, unit))() for unit in units] == [[16], [16, 16], [16]]
    # Of the models only those of the last unit are kept.
    assert [model.name for model in held._held.values()] == ["trio/diffusion"]


def test_a_name_is_that_of_the_result(tmp_path: Path) -> None:
    board, unit = board_in(tmp_path), Unit({"a": 1}, partial(layers), "")
    assert Store(board.results).place({"a": 1}).stem == unit.name(board) != replace(unit, asked={"a": 2}).name(board)


def test_functions_of_a_notebook_go_with_their_values(tmp_path: Path) -> None:
    board, factor = board_in(tmp_path), 3
    unit = Unit({}, lambda: factor * 7, "")
    Packer(board).write(unit)
    assert Models(board.models).function(packed(board, unit))() == 21


def test_what_cannot_go_is_said(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    with pytest.raises(TypeError, match="was made of a torch module and cannot be pickled; expected a model that"):
        Packer(board).write(Unit({}, partial(layers, shallow(dlens.load("trio/ar"), 1)), ""))
    with pytest.raises(TypeError, match="pickle"):
        Packer(board).write(Unit({}, partial(layers, threading.Lock()), ""))  # pyright: ignore
    assert not board.units.exists()

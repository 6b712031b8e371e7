"""Whoever computes, results are the same, and each is computed once."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dlens.workers import Here, Local, Ray, Slurm
from dlens.workers.board import Failure, Standing
from dlens.workers.run import as_workers, computed
from dlens.workers.unit import Unit
from tests.refusing import assert_three_parts
from tests.workers.toys import board_in, broken, counted, squares


def test_workers_are_named_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray is not among what the tests install.
    monkeypatch.setattr("dlens.workers.ray.find_spec", lambda name: name)
    named = {0: Here(), 3: Local(3), "local": Local(), "slurm": Slurm(), "ray": Ray()}
    assert [as_workers(value) for value in named] == list(named.values())
    assert as_workers(Slurm(2, cluster="local")).size(9, 0) == 2  # pyright: ignore


@pytest.mark.parametrize("value", [-1, True, 1.5, "remote", None, [2], Local], ids=repr)
def test_other_workers_are_refused(value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        as_workers(value)
    assert_three_parts(str(caught.value), "workers=")


@pytest.mark.parametrize(("kind", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_what_is_not_installed_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"dlens.workers.{kind}.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"without {package}; expected it to be installed; run pip install 'dlens"):
        as_workers(kind)


def test_units_of_one_question_are_computed_once(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    units = squares(notes, 3)
    seen: list[Standing] = []
    assert computed([*units, units[0]], board, Here(), tell=seen.append) == [{"square": i} for i in (0, 1, 4, 0)]
    assert counted(notes, "ended") == [0, 1, 2] and seen[-1] == Standing(3, 0, 0, 0)
    assert computed(units, board, Here()) == [{"square": i} for i in (0, 1, 4)]
    assert counted(notes, "ended") == [0, 1, 2]
    computed(units[:1], board, Here(), fresh=True)
    assert counted(notes, "ended") == [0, 0, 1, 2]


def test_a_failure_stands_in_the_place_of_a_result_until_it_is_tried_again(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    units = [*squares(notes, 1), Unit({"square of": 7}, partial(broken, 7), "the square of 7")]
    for _ in range(2):
        good, bad = computed(units, board, Here())
        assert good == {"square": 0} and isinstance(bad, Failure) and bad.error == "ValueError: number 7 is odd"
    mended = [units[0], *squares(notes, 8)[7:]]
    assert isinstance(computed(mended, board, Here())[1], Failure)
    assert computed(mended, board, Here(), retry=True) == [{"square": 0}, {"square": 49}]
    assert board.failure(units[1].name(board)) is None


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    [unit] = squares(notes, 1)
    computed([unit], board, Here())
    [path] = board.results.iterdir()
    path.write_text("{")
    with pytest.warns(UserWarning, match="is damaged"):
        assert computed([unit], board, Here()) == [{"square": 0}]
    assert counted(notes, "ended") == [0, 0]


def test_folders_that_cannot_be_used_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(PermissionError, match="is no folder that can be written to"):
        computed(squares(tmp_path / "notes", 1), board_in(tmp_path), Here())
    assert counted(tmp_path / "notes", "began") == []

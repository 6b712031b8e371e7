"""Calls give the same by workers as one after the other."""

from functools import partial
from pathlib import Path

import pytest

from dlens.workers.spread import spread
from tests.unchecked import unchecked
from tests.workers.toys import broken, counted, noted


def test_workers_and_none_give_the_same(tmp_path: Path) -> None:
    calls = [partial(noted, tmp_path, i) for i in range(3)]
    assert spread(calls, "squares", None) == spread(calls, "squares", 0) == [{"square": i * i} for i in range(3)]
    assert counted(tmp_path, "ended") == [0, 0, 1, 1, 2, 2]


def test_a_folder_keeps_what_was_computed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for n in (2, 3):
        spread([partial(noted, notes, i) for i in range(n)], "squares", 0, tmp_path / "out")
    assert counted(notes, "ended") == [0, 1, 2]


def test_a_call_that_fails_is_said_with_where_it_failed() -> None:
    with pytest.raises(RuntimeError, match="(?s)odd numbers 2: ValueError: number 3 is odd .*toys.py"):
        spread([partial(abs, 1), partial(broken, 3)], "odd numbers", 0)


def test_workers_of_other_machines_need_a_folder() -> None:
    with pytest.raises(ValueError, match="workers='slurm' without out=; expected a folder that all mach"):
        spread([partial(abs, 1)], "numbers", "slurm")
    with unchecked(), pytest.raises(ValueError, match="workers=1.5; expected"):
        spread([partial(abs, 1)], "numbers", 1.5)  # pyright: ignore

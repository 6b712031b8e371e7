"""A worker computes what nobody holds, keeps what came out, and ends."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from dlens.workers.board import Standing
from dlens.workers.claims import claim
from dlens.workers.local import _MAIN
from dlens.workers.store import Store
from dlens.workers.unit import Packer, Unit
from dlens.workers.worker import MOST_DEATHS, Job, work
from tests.workers.toys import board_in, broken, counted, squares, wait_for


def test_units_are_computed_and_what_is_held_is_left(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    units = squares(notes, 4)
    for unit in units:
        Packer(board).write(unit)
    held = claim(board.claims, units[2].name(board))
    assert held is not None and work(Job.of(board, board.unfinished())) == 3
    assert board.unfinished() == [units[2].name(board)] and counted(notes, "ended") == [0, 1, 3]
    held.release()
    assert work(Job.of(board, board.unfinished())) == 1 and list(board.claims.iterdir()) == []
    assert [Store(board.results).found(unit.asked) for unit in units] == [({"square": i * i},) for i in range(4)]


def test_an_error_is_kept_and_the_next_unit_computed(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    units = [Unit({"n": 1}, partial(broken, 1), "number 1"), *squares(tmp_path / "notes", 1)]
    for unit in units:
        Packer(board).write(unit)
    work(Job.of(board, board.unfinished()))
    failure = board.failure(units[0].name(board))
    assert failure is not None and str(failure) == "number 1: ValueError: number 1 is odd"
    assert failure.traceback.splitlines()[0].startswith("Traceback") and "toys.py" in failure.traceback
    assert board.unfinished() == [] and Store(board.results).found(units[1].asked) == ({"square": 0},)


def test_a_unit_that_ends_its_workers_is_given_up(tmp_path: Path) -> None:
    board, [unit] = board_in(tmp_path), squares(tmp_path / "notes", 1)
    Packer(board).write(unit)
    board.claims.mkdir()
    dead = {"place": "elsewhere", "pid": 1, "born": 0}
    for number in range(MOST_DEATHS):
        path = board.claims / f"{unit.name(board)}.{number}"
        path.write_text(json.dumps(dead))
        os.utime(path, (1, 1))
    assert work(Job.of(board, board.unfinished())) == 0
    failure = board.failure(unit.name(board))
    assert failure is not None and failure.error.startswith(f"{MOST_DEATHS} workers ended while they computed it")
    assert list(board.claims.iterdir()) == [] and counted(tmp_path / "notes", "began") == []


def test_a_result_that_is_there_is_not_computed_again_unless_asked(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    [unit] = squares(notes, 1)
    for fresh, computed in ((False, 1), (False, 1), (True, 2)):
        Packer(board).write(unit, fresh)
        work(Job.of(board, board.unfinished()))
        assert len(counted(notes, "ended")) == computed


@pytest.mark.parametrize("how", ["terminate", "parent"])
def test_a_worker_that_is_told_to_end_lets_go_of_its_unit(tmp_path: Path, how: str) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    [unit] = squares(notes, 1, seconds=600)
    Packer(board).write(unit)
    command = [sys.executable, "-c", _MAIN, json.dumps(asdict(Job.of(board, board.unfinished())))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    wait_for(lambda: counted(notes, "began"))
    if how == "terminate":
        process.terminate()
    else:
        # As when the process that asked is gone.
        process.stdin.close()
    assert process.wait(60) == 143
    process.stdin.close()
    assert list(board.claims.iterdir()) == [] and board.unfinished() == [unit.name(board)]


def test_what_others_asked_for_is_left_to_them(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    mine, other = squares(notes, 2)
    for unit in (other, mine):
        Packer(board).write(unit)
    job = Job.of(board, [mine.name(board)])
    assert work(job) == 1 and counted(notes, "ended") == [0] and board.unfinished() == [other.name(board)]
    assert board.standing([mine.name(board)]) == Standing(1, 0, 0, 0) and board.standing() == Standing(1, 0, 1, 0)
    job.over()
    # Who starts when everything is there has nothing to do.
    assert work(job) == 0

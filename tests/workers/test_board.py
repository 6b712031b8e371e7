"""What workers share can be read by anybody, at any time."""

import os
from pathlib import Path

from dlens.workers.board import Failure, Standing
from dlens.workers.claims import claim
from tests.workers.toys import board_in


def test_units_come_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    assert board.unfinished() == [] and board.standing() == Standing(0, 0, 0, 0)
    board.units.mkdir(parents=True)
    for age, name in enumerate(("c", "a", "b")):
        board.unit(name).touch()
        os.utime(board.unit(name), (age, age))
    (board.units / ".d.unfinished").touch()
    assert board.unfinished() == ["c", "a", "b"]


def test_how_far_it_is(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    for folder in (board.units, board.results):
        folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        board.unit(name).touch()
    (board.results / "d.json").touch()
    (board.results / ".e.json").touch()
    assert claim(board.claims, "b") is not None
    board.fail("c", Failure("c", "no", "no", "here"))
    assert board.standing() == Standing(done=1, running=1, waiting=1, failed=1)
    assert str(board.standing()) == "1 of 4 done, 1 running, 1 waiting, 1 failed"


def test_a_failure_is_kept_until_it_is_forgiven(tmp_path: Path) -> None:
    board, failure = board_in(tmp_path), Failure("words", "error", "traceback", "where")
    board.fail("a", failure)
    assert board.failure("a") == failure and board.failure("b") is None
    board.forgive("a")
    board.forgive("b")
    assert board.failure("a") is None

"""Units that need no model, for tests of workers; importable, as workers import them too."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dlens.workers.board import Board
from dlens.workers.unit import Unit


def noted(folder: Path, number: int, seconds: float = 0.0) -> dict[str, int]:
    """A square; that it was begun and ended stays in files."""
    (folder / f"began-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(seconds)
    (folder / f"ended-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return {"square": number**2}


def broken(number: int) -> None:
    raise ValueError(f"number {number} is odd")


def fatal() -> None:
    os._exit(9)


def board_in(folder: Path) -> Board:
    return Board(folder / "results", folder / "work")


def squares(notes: Path, n: int, seconds: float = 0.0) -> list[Unit]:
    notes.mkdir(exist_ok=True)
    return [Unit({"square of": i}, partial(noted, notes, i, seconds), f"the square of {i}") for i in range(n)]


def counted(notes: Path, what: str) -> list[int]:
    """The numbers that were begun, or ended, in order."""
    return sorted(int(path.name.split("-")[1]) for path in notes.glob(f"{what}-*"))


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

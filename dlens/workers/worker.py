"""One worker: it takes units that nobody holds, computes them and keeps their results, until there are none."""

from __future__ import annotations

import json
import os
import pickle
import platform
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from dlens.files import write_text
from dlens.workers.board import Board, Failure
from dlens.workers.claims import Claim, beating, claim
from dlens.workers.store import Store
from dlens.workers.unit import Models, Packed

__all__ = ["MOST_DEATHS", "Job", "kept", "main", "work"]

MOST_DEATHS = 5
"""So many workers may end within one unit, of which the last may have been killed for its memory."""


@final
@dataclass(frozen=True)
class Job:
    """What a worker is told.

    Args:
        results, work: the folders of the board.
        asked: a file with the names of the units to compute, whatever else stands on the board.
        paths: where modules are imported from, as in the process that asked.
    """

    results: str
    work: str
    asked: str
    paths: tuple[str, ...]

    @classmethod
    def of(cls, board: Board, names: Iterable[str]) -> Job:
        """The job of computing some units of a board."""
        folder = board.work / "asked"
        asked = write_text(folder / f"{secrets.token_hex(8)}.json", json.dumps(list(names)))
        results, work, asked = (str(place.resolve()) for place in (board.results, board.work, asked))
        return cls(results, work, asked, tuple(map(os.path.abspath, sys.path)))

    @property
    def names(self) -> frozenset[str]:
        """The units to compute; none where who asked has all of them."""
        with suppress(FileNotFoundError):
            return frozenset(json.loads(Path(self.asked).read_text(encoding="utf-8")))
        return frozenset()

    def over(self) -> None:
        """Nobody needs to begin with it any more."""
        Path(self.asked).unlink(missing_ok=True)

    @property
    def board(self) -> Board:
        """Its folders."""
        return Board(Path(self.results), Path(self.work))


def work(job: Job) -> int:
    """Compute units until there are none that nobody holds.

    Returns:
        How many were computed.
    """
    sys.path += [path for path in job.paths if path not in sys.path]
    board, names, done = job.board, job.names, 0
    models = Models(board.models)
    while (taken := _next(board, names)) is not None:
        with _held(taken):
            done += _compute(board, taken, models)
    return done


def _next(board: Board, names: frozenset[str]) -> Claim | None:
    for name in board.unfinished(names):
        if (taken := claim(board.claims, name)) is not None:
            return taken
    return None


@contextmanager
def _held(taken: Claim) -> Iterator[None]:
    try:
        with beating(taken):
            yield
    finally:
        taken.release()


def _compute(board: Board, taken: Claim, models: Models) -> bool:
    """Compute a unit; whatever it raises is kept beside, and ends no worker."""
    place = board.unit(taken.name)
    try:
        packed: Packed = pickle.loads(place.read_bytes())
    except FileNotFoundError:
        # Another finished it between a look and the claim.
        return False
    if taken.number >= MOST_DEATHS:
        words = f"{taken.number} workers ended while they computed it; they may have run out of memory"
        board.fail(taken.name, Failure(packed.words, words, words, platform.node()))
        return False
    with kept(board, taken.name, packed.words):
        Store(board.results, packed.fresh).once(packed.asked, lambda: models.function(packed)())
        place.unlink(missing_ok=True)
    return True


@contextmanager
def kept(board: Board, name: str, words: str) -> Iterator[None]:
    """Whatever the body raises becomes a failure of the unit."""
    try:
        yield
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        board.fail(name, Failure(words, what, traceback.format_exc(), platform.node()))


def main(arguments: Sequence[str]) -> None:
    """A worker as a process: the job as JSON; its input stays open as long as the process that asked is there."""
    given: dict[str, Any] = json.loads(arguments[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(Job(given["results"], given["work"], given["asked"], tuple(given["paths"])))


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock a thread that waits would hold when Python ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Workers apart from this process: units are written for them, and workers that end too early are replaced."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from dlens.workers.base import Tell, Workers
from dlens.workers.board import Board
from dlens.workers.claims import is_held
from dlens.workers.unit import Packer, Unit
from dlens.workers.worker import Job

__all__ = ["Crew", "Running"]

_POLL, _FAREWELL = 0.2, 10.0


class Running(ABC):
    """A worker that was started.

    Args:
        slot: its number among those that run, from 0.
    """

    slot: int

    @abstractmethod
    def alive(self) -> bool:
        """Whether it runs, or waits for its turn in a queue."""

    @abstractmethod
    def stop(self) -> None:
        """End it if it is not at its end, and let go of what it held; what it computes another computes again."""

    @abstractmethod
    def said(self) -> str:
        """The end of what it wrote."""


class Crew(Workers, ABC):
    """Workers in processes of their own."""

    @abstractmethod
    def size(self, n_units: int, model_bytes: int) -> int:
        """How many workers at most.

        Args:
            n_units: units to compute.
            model_bytes: the size of their largest model.
        """

    @abstractmethod
    def start(self, job: Job, slots: Sequence[int], size: int) -> list[Running]:
        """Start workers.

        Args:
            job: what they are told.
            slots: their numbers.
            size: of the whole crew, to share processors.
        """

    def run(self, units: Mapping[str, Unit], board: Board, fresh: bool, tell: Tell) -> None:
        """See `Workers.run`."""
        size = self.size(len(units), _written(units, board, fresh))
        job, running = Job.of(board, units), list[Running]()
        try:
            self._follow(job, size, running, tell)
            _wait(running)
        finally:
            for each in running:
                each.stop()
            job.over()

    def _follow(self, job: Job, size: int, running: list[Running], tell: Tell) -> None:
        board, names = job.board, job.names
        started, n_left = 0, len(names) + 1
        while left := board.unfinished(names):
            if len(left) < n_left:
                started, n_left = 0, len(left)
            gone = [each for each in running if not each.alive()]
            for each in gone:
                each.stop()
            running[:] = [each for each in running if each not in gone]
            free = sum(not is_held(board.claims, name) for name in left)
            lacking = min(size - len(running), free)
            if lacking > 0:
                started += lacking
                _refuse_endless(started, size, gone)
                busy = {each.slot for each in running}
                running += self.start(job, [slot for slot in range(size) if slot not in busy][:lacking], size)
            tell(board.standing(names))
            time.sleep(_POLL)
        tell(board.standing(names))


def _written(units: Mapping[str, Unit], board: Board, fresh: bool) -> int:
    """Write all units, or none; the size of their largest model."""
    packer = Packer(board)
    try:
        for unit in units.values():
            packer.write(unit, fresh)
    except BaseException:
        for name in units:
            board.unit(name).unlink(missing_ok=True)
        raise
    return packer.model_bytes


def _wait(running: Sequence[Running]) -> None:
    """Let workers that found nothing left end by themselves."""
    deadline = time.monotonic() + _FAREWELL
    while any(each.alive() for each in running) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _refuse_endless(started: int, size: int, gone: Sequence[Running]) -> None:
    """Workers that were started again and again without finishing anything are not started once more."""
    if started > 4 * size + 4:
        last = gone[-1].said() if gone else "nothing"
        raise RuntimeError(
            f"{started} workers ended before they finished a unit; expected them to compute; the last one said:\n{last}"
        )

"""Ask workers for units, wait for all of them, and read what came out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from dlens.checks import quoted, whole
from dlens.files import check_folder
from dlens.workers.base import Tell, Workers
from dlens.workers.board import Board, Failure
from dlens.workers.here import Here
from dlens.workers.local import Local
from dlens.workers.ray import Ray
from dlens.workers.slurm import Slurm
from dlens.workers.store import Store
from dlens.workers.unit import Unit

__all__ = ["as_workers", "computed"]

_KINDS: dict[str, Callable[[], Workers]] = {"local": Local, "slurm": Slurm, "ray": Ray}


def as_workers(value: Any) -> Workers:
    """Who computes, as users write it.

    Args:
        value: "local", "slurm", "ray"; a number of processes of this machine, 0 for this process itself; or one of
            `dlens.workers` with its settings.

    Raises:
        ValueError: something else.
        ImportError: what they need is not installed.

    Examples:
        >>> as_workers(2), as_workers(0)
        (Local(count=2, threads=None), Here())
    """
    number = whole(value)
    if number is not None and number >= 0:
        found = Local(number) if number else Here()
    elif isinstance(value, str) and value in _KINDS:
        found = _KINDS[value]()
    elif isinstance(value, Workers):
        found = value
    else:
        raise ValueError(
            f"workers={quoted(value)}; expected 'local', 'slurm', 'ray', a number of processes or one of "
            f"dlens.workers; write for example workers=2"
        )
    found.check()
    return found


def computed(
    units: Sequence[Unit],
    board: Board,
    workers: Workers,
    *,
    retry: bool = False,
    fresh: bool = False,
    tell: Tell = lambda standing: None,
) -> list[Any | Failure]:
    """The results of units, computed once by whichever workers there are.

    Args:
        units: what is asked; several may ask the same.
        board: where results are kept, and workers meet.
        workers: who computes.
        retry: try again what failed before.
        fresh: compute everything again.
        tell: called now and then with how far it is.

    Returns:
        Per unit its result as plain data, or why there is none.

    Raises:
        OSError: the folders cannot be used.
        TypeError, pickle.PicklingError: a unit cannot be sent to another process.
        RuntimeError: workers end and finish nothing.
    """
    for folder in (board.results, board.work):
        check_folder(folder)
    store = Store(board.results, fresh)
    missing: dict[str, Unit] = {}
    for unit in units:
        name = unit.name(board)
        if name not in missing and store.found(unit.asked) is None:
            if retry or fresh:
                board.forgive(name)
            if board.failure(name) is None:
                missing[name] = unit
    if missing:
        workers.run(missing, board, fresh, tell)
    _tidy(board)
    return [_outcome(unit, board) for unit in units]


def _outcome(unit: Unit, board: Board) -> Any | Failure:
    found = Store(board.results).found(unit.asked)
    if found is not None:
        return found[0]
    failure = board.failure(unit.name(board))
    return failure or Failure(unit.words, "its result is gone", "its file was removed or damaged", "")


def _tidy(board: Board) -> None:
    """Where nothing is left to do, what served to do it goes; what failed stays, with what workers wrote."""
    if not board.unfinished():
        gone = (board.units, board.models, board.claims) if board.standing().failed else (board.work,)
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)

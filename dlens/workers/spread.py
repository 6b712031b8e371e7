"""Calls that do not hang on each other, computed by workers where there are some, else here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlens.checks import as_path
from dlens.digest import value_digest
from dlens.workers.base import Workers
from dlens.workers.board import Board, Failure
from dlens.workers.run import as_workers, computed
from dlens.workers.unit import Unit

__all__ = ["spread"]


def spread(
    calls: Sequence[Callable[[], Any]], words: str, workers: str | int | Workers | None, out: str | Path | None = None
) -> list[Any]:
    """What calls give, in their order.

    Args:
        calls: functions without arguments that give plain data.
        words: what they are, for messages.
        workers: who computes, as `dlens.sweep` takes them; None calls them one after the other.
        out: a folder where results are kept, so that what was computed is not computed again; by default one that is
            removed afterwards.

    Raises:
        ValueError: no folder for workers of other machines.
        RuntimeError: a call failed in a worker.

    Examples:
        >>> from functools import partial
        >>> spread([partial(sum, [1, 2]), partial(sum, [3])], "sums", None)
        [3, 3]
    """
    if workers is None:
        return [call() for call in calls]
    crew = as_workers(workers)
    if out is None and crew.elsewhere:
        raise ValueError(
            f"workers={workers!r} without out=; expected a folder that all machines see; write for example out='runs'"
        )
    with _folder(out) as folder:
        board = Board(folder / "results", folder / "work")
        units = [Unit({"call": value_digest(call)}, call, f"{words} {i + 1}") for i, call in enumerate(calls)]
        found = computed(units, board, crew, retry=True)
    for each in found:
        if isinstance(each, Failure):
            raise RuntimeError(f"{each} (on {each.where}); expected a result\n{each.traceback}")
    return found


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield as_path(out, "out")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)

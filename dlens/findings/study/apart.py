"""Workers compute the parts of a study into its store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlens.findings.study.asking import Asking, Question
from dlens.workers.base import Workers
from dlens.workers.board import Board, Failure
from dlens.workers.run import computed
from dlens.workers.store import Store

__all__ = ["computed_apart"]


def computed_apart(askings: Sequence[Asking], workers: Workers) -> int:
    """Let workers compute the parts into the store: first how all models read, then the rest; how many were missing."""
    readings = [asking.reading() for asking in askings]
    n_missing = _apart(readings, askings, workers)
    rest: list[Question[Any]] = []
    for asking, question in zip(askings, readings, strict=True):
        reading = Store(asking.store.folder).once(question.asked, question.compute, question.read)
        rest += asking.later(reading).every()
    return n_missing + _apart(rest, askings, workers)


def _apart(questions: Sequence[Question[Any]], askings: Sequence[Asking], workers: Workers) -> int:
    store, bar = askings[0].store, askings[0].bar
    if store.folder is None:
        raise ValueError("workers without a folder; expected a store on disk, where they meet; pass Store(folder)")
    missing = [question for question in questions if store.found(question.asked, question.read) is None]
    board = Board(store.folder, store.folder / "work")
    tell = lambda standing: bar.set_description(f"workers: {standing}")  # noqa: E731
    for each in computed([question.unit() for question in missing], board, workers, fresh=store.fresh, tell=tell):
        if isinstance(each, Failure):
            raise RuntimeError(f"{each} (on {each.where}); expected a part of the study\n{each.traceback}")
    return len({question.unit().name(board) for question in missing})

"""No worker at all: this process computes, one unit after the other, and shares a folder with others that do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from dlens.workers.base import Tell, Workers
from dlens.workers.board import Board
from dlens.workers.claims import beating, claim
from dlens.workers.store import Store
from dlens.workers.unit import Unit
from dlens.workers.worker import kept

__all__ = ["Here"]


@final
@dataclass(frozen=True)
class Here(Workers):
    """This process, as `workers=0`: for models and functions that cannot be sent to another one.

    Examples:
        >>> Here().check()
    """

    def check(self) -> None:
        """Nothing is needed."""

    def run(self, units: Mapping[str, Unit], board: Board, fresh: bool, tell: Tell) -> None:
        """See `Workers.run`."""
        store, left = Store(board.results, fresh), dict(units)
        while left:
            for name, unit in list(left.items()):
                taken = claim(board.claims, name)
                if taken is None:
                    continue
                try:
                    with beating(taken), kept(board, name, unit.words):
                        store.once(unit.asked, unit.compute)
                finally:
                    taken.release()
                del left[name]
                tell(board.standing(units))
            if left:
                # Others hold the rest.
                time.sleep(0.2)

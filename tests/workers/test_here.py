"""This process computes what no other holds, and waits for the rest."""

import threading
import time
from pathlib import Path

from dlens.workers.claims import claim
from dlens.workers.here import Here
from dlens.workers.store import Store
from tests.workers.toys import board_in, counted, squares


def test_what_another_holds_is_waited_for_and_not_computed_twice(tmp_path: Path) -> None:
    board, notes = board_in(tmp_path), tmp_path / "notes"
    units = {unit.name(board): unit for unit in squares(notes, 2)}
    name, unit = next(iter(units.items()))
    held = claim(board.claims, name)
    assert held is not None

    def other() -> None:
        time.sleep(0.3)
        Store(board.results).once(unit.asked, unit.compute)
        held.release()

    thread = threading.Thread(target=other)
    thread.start()
    Here().run(units, board, False, lambda standing: None)
    thread.join()
    assert counted(notes, "ended") == [0, 1] and list(board.claims.iterdir()) == []

"""Workers that end too early are replaced; whatever is killed, nothing is lost and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from dlens.workers.crew import Crew, Running
from dlens.workers.local import Local
from dlens.workers.run import computed
from dlens.workers.unit import Unit
from dlens.workers.worker import MOST_DEATHS, Job
from tests.workers.toys import board_in, counted, fatal, squares, wait_for

ASK = """
import sys
from pathlib import Path
from dlens.workers.local import Local
from dlens.workers.run import computed
from tests.workers.toys import board_in, squares
folder = Path(sys.argv[1])
computed(squares(folder / "notes", 12, 0.1), board_in(folder), Local(1, threads=1))
"""


class Stillborn(Running):
    """A worker that is gone at once."""

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def alive(self) -> bool:
        return False

    def stop(self) -> None: ...

    def said(self) -> str:
        return "ImportError: no module named x"


class Hopeless(Crew):
    started = 0

    def check(self) -> None: ...

    def size(self, n_units: int, model_bytes: int) -> int:
        return 2

    def start(self, job: Job, slots: Sequence[int], size: int) -> list[Running]:
        self.started += len(slots)
        return [Stillborn(slot) for slot in slots]


def test_workers_that_never_finish_anything_end_it_with_what_they_said(tmp_path: Path) -> None:
    crew = Hopeless()
    with pytest.raises(RuntimeError, match="workers ended before they finished a unit; .*said:\nImportError: no mod"):
        computed(squares(tmp_path / "notes", 3), board_in(tmp_path), crew)
    assert crew.started == 12
    # The units are there for whoever comes next.
    assert len(board_in(tmp_path).unfinished()) == 3


def test_all_units_are_written_or_none(tmp_path: Path) -> None:
    board, lock = board_in(tmp_path), threading.Lock()
    units = [*squares(tmp_path / "notes", 2), Unit({}, partial(print, lock), "")]
    with pytest.raises(TypeError, match="pickle"):
        computed(units, board, Local(1))
    assert board.unfinished() == []


def test_kills_of_a_worker_and_of_who_asked_lose_nothing(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    asked = subprocess.Popen([sys.executable, "-c", ASK, str(tmp_path)])
    for n, whom in ((2, "worker"), (4, "asked")):
        wait_for(lambda least=n: len(counted(notes, "ended")) >= least)
        child = psutil.Process(asked.pid).children()[0]
        (child if whom == "worker" else asked).send_signal(signal.SIGKILL)
    asked.wait()
    found = computed(squares(notes, 12, 0.1), board_in(tmp_path), Local(1, threads=1))
    assert found == [{"square": i * i} for i in range(12)]
    ended = counted(notes, "ended")
    # Only a kill between the last line of a unit and its result lets an end be seen twice.
    assert sorted(set(ended)) == list(range(12)) and len(ended) <= 12 + 2
    assert not list((tmp_path / "work").glob("units/*")) and not list(tmp_path.rglob("*.unfinished"))


def test_a_unit_that_kills_its_worker_ends_no_other(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    units = [Unit({"fatal": 1}, fatal, "fatal"), *squares(tmp_path / "notes", 2)]
    board.claims.mkdir(parents=True)
    for number in range(MOST_DEATHS - 1):
        (board.claims / f"{units[0].name(board)}.{number}").write_text(json.dumps({"place": "elsewhere"}))
        os.utime(board.claims / f"{units[0].name(board)}.{number}", (1, 1))
    failed, *others = computed(units, board, Local(1, threads=1))
    assert failed.error.startswith(f"{MOST_DEATHS} workers ended while they computed it")
    assert others == [{"square": 0}, {"square": 1}]

"""A unit is held by one process, and by the next one when that is dead."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlens.workers import claims
from dlens.workers.claims import beating, claim, is_held

HOLD = "import sys, time; from pathlib import Path; from dlens.workers.claims import claim; {}"


def hold_and_die(folder: Path, name: str) -> None:
    script = f"import os; claim(Path({str(folder)!r}), {name!r}); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", HOLD.format(script)]).returncode == 9


def test_only_one_gets_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim(tmp_path, "a"), range(64)))
    [mine] = [each for each in found if each is not None]
    assert mine.number == 0 and is_held(tmp_path, "a") and not is_held(tmp_path, "b")
    mine.release()
    assert not is_held(tmp_path, "a") and list(tmp_path.iterdir()) == []


def test_the_dead_are_followed_by_one(tmp_path: Path) -> None:
    hold_and_die(tmp_path, "a")
    assert not is_held(tmp_path, "a") and (tmp_path / "a.0").exists()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim(tmp_path, "a"), range(64)))
    [mine] = [each for each in found if each is not None]
    assert mine.number == 1
    mine.release()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_got_is_no_sign_of_life(tmp_path: Path) -> None:
    taken = claim(tmp_path, "a")
    assert taken is not None
    held = json.loads(taken.path.read_text())
    taken.path.write_text(json.dumps(held | {"born": held["born"] - 100}))
    assert not is_held(tmp_path, "a")


def test_on_another_machine_only_the_beat_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = claim(tmp_path, "a")
    assert taken is not None
    taken.path.write_text(json.dumps({"place": "elsewhere", "pid": 1, "born": 0}))
    assert is_held(tmp_path, "a")
    long_ago = time.time() - claims._PATIENCE - 1
    os.utime(taken.path, (long_ago, long_ago))
    assert not is_held(tmp_path, "a")
    monkeypatch.setattr(claims, "_BEAT", 0.01)
    with beating(taken):
        deadline = time.monotonic() + 10
        while not is_held(tmp_path, "a") and time.monotonic() < deadline:
            time.sleep(0.01)
    assert is_held(tmp_path, "a")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_claim_that_is_being_written_counts_for_a_moment(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.0"
    path.write_text(text)
    assert is_held(tmp_path, "a") and claim(tmp_path, "a") is None
    long_ago = time.time() - claims._BEAT - 1
    os.utime(path, (long_ago, long_ago))
    taken = claim(tmp_path, "a")
    assert taken is not None and taken.number == 1

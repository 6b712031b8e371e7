"""Processes of this machine share out its processors, or its GPUs."""

import os
from functools import partial
from pathlib import Path

import psutil
import pytest

from dlens.workers import local
from dlens.workers.local import Local
from dlens.workers.run import computed
from dlens.workers.unit import Unit
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked
from tests.workers.toys import board_in


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_processors", lambda: 8)
    free = psutil.virtual_memory().available
    assert [Local().size(n, 0) for n in (1, 5, 100)] == [1, 5, 8]
    # Two of such models fit, each with room to work.
    assert Local().size(100, (free // 2 - 2**30) // 2 - 2**28) == 2 and Local().size(100, free) == 1
    assert Local(3).size(100, free) == 3 and Local(3).size(2, 0) == 2
    monkeypatch.setattr(local, "_gpus", lambda: ["4", "5"])
    assert Local().size(100, 0) == 2


def test_processors_and_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_processors", lambda: 6)
    monkeypatch.setattr(local, "_gpus", lambda: ["7"])
    unit = Unit({}, partial(environment, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"), "")
    assert computed([unit], board_in(tmp_path), Local(1)) == [["6", "6", "7"]]
    assert "7" != os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("setting", [{"count": 0}, {"count": 1.5}, {"threads": -1}, {"threads": True}], ids=str)
def test_settings_that_are_none(setting: dict) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        Local(**setting)
    assert_three_parts(str(caught.value), f"{next(iter(setting))}=")

"""Actors of Ray compute everything once."""

from pathlib import Path

import pytest

from dlens.workers.ray import Ray
from dlens.workers.run import computed
from tests.workers.toys import board_in, counted, squares


# Ray leaves sockets and files of its own services to be closed by the end of the process.
@pytest.mark.filterwarnings("ignore")
def test_actors_compute_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    # What it waits for its services, on a machine that is busy with other tests.
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "180")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    notes = tmp_path / "notes"
    try:
        found = computed(squares(notes, 6), board_in(tmp_path), Ray(2))
    finally:
        ray.shutdown()
    assert found == [{"square": i * i} for i in range(6)] and counted(notes, "ended") == list(range(6))

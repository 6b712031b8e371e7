"""Jobs of a cluster, by the stand-in that submitit has for one."""

from pathlib import Path

import pytest
import submitit

from dlens.workers.run import computed
from dlens.workers.slurm import Slurm, _Resumed
from dlens.workers.unit import Packer
from dlens.workers.worker import Job
from tests.unchecked import unchecked
from tests.workers.toys import board_in, counted, squares


def test_jobs_compute_everything_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    found = computed(squares(notes, 6), board_in(tmp_path), Slurm(2, cluster="local"))
    assert found == [{"square": i * i} for i in range(6)] and counted(notes, "ended") == list(range(6))


def test_a_job_that_is_out_of_time_is_queued_again_with_what_is_left(tmp_path: Path) -> None:
    board = board_in(tmp_path)
    for unit in squares(tmp_path / "notes", 1):
        Packer(board).write(unit)
    again = _Resumed().checkpoint(Job.of(board, board.unfinished()))
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.result() == 1


def test_settings_become_those_of_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict = {}
    monkeypatch.setattr(submitit.AutoExecutor, "update_parameters", lambda self, **settings: given.update(settings))
    slurm = Slurm(3, minutes=7, cpus=2, gpus=1, memory_gb=9, partition="long", cluster="debug")
    job = Job.of(board_in(tmp_path), [])
    assert [each.slot for each in slurm.start(job, [0, 2], 3)] == [0, 2]
    asked = {"timeout_min": 7, "cpus_per_task": 2, "gpus_per_node": 1, "mem_gb": 9, "slurm_partition": "long"}
    assert given == {"name": "dlens"} | asked
    with unchecked(), pytest.raises(ValueError, match="cluster='pbs'; expected one of slurm, local, debug"):
        Slurm(cluster="pbs")

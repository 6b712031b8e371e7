"""Actors of Ray, by a stand-in for it: Ray itself needs half a minute of a quiet machine to start its services.

`python -m benchmarks.sweeps --kinds ray` runs the same with Ray.
"""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlens.workers.ray import Ray
from dlens.workers.run import computed
from tests.workers.toys import board_in, counted, squares


class StandIn:
    """What dlens uses of Ray: actors whose methods run beside, waited for, asked and killed."""

    def __init__(self, breaks: bool = False) -> None:
        self.pool, self.breaks = ThreadPoolExecutor(4), breaks
        self.started: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.killed = 0

    def is_initialized(self) -> bool:
        return bool(self.started)

    def init(self, **settings: Any) -> None:
        if self.breaks:
            raise RuntimeError("The current node timed out during startup.")
        self.started.append(settings)

    def remote(self, **needs: Any) -> Any:
        def made(kind: type) -> Any:
            def actor() -> Any:
                self.asked.append(needs)
                compute = kind().compute
                return SimpleNamespace(compute=SimpleNamespace(remote=lambda job: self.pool.submit(compute, job)))

            return SimpleNamespace(remote=actor)

        return made

    def wait(self, futures: list[Future], timeout: float) -> tuple[list[Future], list[Future]]:
        return [each for each in futures if each.done()], [each for each in futures if not each.done()]

    def get(self, future: Future) -> Any:
        return future.result()

    def kill(self, actor: Any) -> None:
        self.killed += 1


def test_actors_compute_everything_once_and_are_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)  # pyright: ignore
    notes = tmp_path / "notes"
    crew = Ray(2, cpus=3, gpus=0.5, address="auto")
    assert computed(squares(notes, 6), board_in(tmp_path), crew) == [{"square": i * i} for i in range(6)]
    assert counted(notes, "ended") == list(range(6))
    assert ray.asked == [{"num_cpus": 3, "num_gpus": 0.5}] * 2 and ray.killed == 2
    assert len(ray.started) == 1 and ray.started[0]["address"] == "auto"


def test_what_an_actor_said_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)  # pyright: ignore
    monkeypatch.setattr(ray, "exceptions", SimpleNamespace(RayError=RuntimeError), raising=False)
    from dlens.workers.worker import Job

    [actor] = Ray(1).start(Job.of(board_in(tmp_path), []), [0], 1)
    assert actor.said() == "0 units computed" and not actor.alive()
    monkeypatch.setattr(ray, "get", lambda future: (_ for _ in ()).throw(RuntimeError("the actor died")))
    assert actor.said() == "the actor died"


def test_a_cluster_that_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", StandIn(breaks=True))  # pyright: ignore
    with pytest.raises(RuntimeError, match="Ray did not start .*; expected a cluster; .*ray start --head"):
        computed(squares(tmp_path / "notes", 1), board_in(tmp_path), Ray(1))
    assert counted(tmp_path / "notes", "began") == []

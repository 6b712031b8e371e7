"""Actors of a Ray cluster; each holds its model, and they share the folder of results with who asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final

from dlens.workers.crew import Crew, Running
from dlens.workers.worker import Job, work

__all__ = ["Ray"]


@final
@dataclass(frozen=True)
class Ray(Crew):
    """Actors of a Ray cluster.

    The folder of results must be one that all nodes see. Ray is started on this machine where none runs.

    Args:
        count: how many actors.
        cpus, gpus: of each.
        address: of a running cluster, such as "auto"; by default what Ray finds, or a new one here.

    Examples:
        >>> Ray(2, gpus=1).size(n_units=100, model_bytes=0)
        2
    """

    count: int = 4
    cpus: int = 1
    gpus: float = 0
    address: str | None = None

    elsewhere = True

    def check(self) -> None:
        """See `Workers.check`."""
        if find_spec("ray") is None:
            raise ImportError("workers on Ray without ray; expected it to be installed; run pip install 'dlens[ray]'")

    def size(self, n_units: int, model_bytes: int) -> int:
        """See `Crew.size`."""
        return min(self.count, n_units)

    def start(self, job: Job, slots: Sequence[int], size: int) -> list[Running]:
        """See `Crew.start`."""
        ray = _library()
        if not ray.is_initialized():
            _begin(self.address)
        kind = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(_Actor)
        return [_Started(slot, kind.remote(), job) for slot in slots]


def _library() -> Any:
    # By name: this file is called as Ray's own package is, and a type checker would take it for that.
    return import_module("ray")


def _begin(address: str | None) -> None:
    try:
        _library().init(address=address, include_dashboard=False, log_to_driver=False)
    # It raises a plain Exception where its services do not start in time.
    except Exception as error:
        raise RuntimeError(
            f"Ray did not start ({error}); expected a cluster; it gives its services half a minute, so start it by "
            f"hand on a quiet machine (ray start --head), and pass dlens.workers.Ray(address='auto')"
        ) from error


class _Actor:
    """Holds the models of its units as long as it computes."""

    def compute(self, job: Job) -> int:
        return work(job)


@final
class _Started(Running):
    def __init__(self, slot: int, actor: Any, job: Job) -> None:
        self.slot, self._actor = slot, actor
        self._done = actor.compute.remote(job)

    def alive(self) -> bool:
        return not _library().wait([self._done], timeout=0)[0]

    def stop(self) -> None:
        _library().kill(self._actor)

    def said(self) -> str:
        ray = _library()
        try:
            return f"{ray.get(self._done)} units computed"
        except ray.exceptions.RayError as error:
            return str(error)[-2000:]

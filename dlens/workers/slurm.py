"""Jobs of a SLURM cluster, through submitit; they share the folder of results with who asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, final

from dlens.checks import require_word
from dlens.workers.crew import Crew, Running
from dlens.workers.worker import Job, work

__all__ = ["Slurm"]


@final
@dataclass(frozen=True)
class Slurm(Crew):
    """Jobs of a SLURM cluster, as an array.

    The folder of results must be one that all nodes see. A job that is preempted is queued again.

    Args:
        count: how many jobs.
        minutes: of each at most.
        cpus, gpus, memory_gb: of each.
        partition: in which they wait; the cluster's own by default.
        options: further ones, as `submitit.AutoExecutor.update_parameters` takes them, such as
            `{"slurm_account": "me"}`.
        cluster: "slurm"; "local" and "debug" are submitit's own stand-ins on one machine.

    Examples:
        >>> Slurm(8, minutes=120, gpus=1, options={"slurm_account": "me"}).size(n_units=100, model_bytes=0)
        8
    """

    count: int = 4
    minutes: int = 60
    cpus: int = 4
    gpus: int = 0
    memory_gb: int = 16
    partition: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"

    elsewhere = True

    def __post_init__(self) -> None:
        require_word("cluster", self.cluster, ("slurm", "local", "debug"))

    def check(self) -> None:
        """See `Workers.check`."""
        if find_spec("submitit") is None:
            raise ImportError(
                "workers on SLURM without submitit; expected it to be installed; run pip install 'dlens[sweep]'"
            )

    def size(self, n_units: int, model_bytes: int) -> int:
        """See `Crew.size`."""
        return min(self.count, n_units)

    def start(self, job: Job, slots: Sequence[int], size: int) -> list[Running]:
        """See `Crew.start`."""
        import submitit

        executor = submitit.AutoExecutor(folder=job.board.logs / "%j", cluster=self.cluster)
        queue = {} if self.partition is None else {"slurm_partition": self.partition}
        executor.update_parameters(
            name="dlens",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus,
            mem_gb=self.memory_gb,
            **queue,
            **self.options,
        )
        with executor.batch():
            submitted = [executor.submit(_Resumed(), job) for _ in slots]
        return [_Submitted(slot, each) for slot, each in zip(slots, submitted, strict=True)]


class _Resumed:
    """A worker that, when its job is preempted or out of time, is queued again and goes on with what is left."""

    def __call__(self, job: Job) -> int:
        return work(job)

    def checkpoint(self, job: Job) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


@final
class _Submitted(Running):
    def __init__(self, slot: int, job: Any) -> None:
        self.slot, self._job = slot, job

    def alive(self) -> bool:
        return not self._job.done()

    def stop(self) -> None:
        self._job.cancel(check=False)

    def said(self) -> str:
        return (self._job.stderr() or "")[-2000:]

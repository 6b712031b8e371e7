"""Processes of this machine: one a GPU, or processors shared out among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import psutil

from dlens.checks import refuse, whole
from dlens.workers.crew import Crew, Running
from dlens.workers.worker import Job

__all__ = ["Local"]

_LIBRARIES = 2**30
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_MAIN = "import sys; from dlens.workers.worker import main; main(sys.argv[1:])"


@final
@dataclass(frozen=True)
class Local(Crew):
    """Processes of this machine.

    Each sees one GPU, where there are some; else the processors are shared out among them.

    Args:
        count: how many; by default one a GPU, or one a processor as far as memory holds the models.
        threads: of each; by default its share of the processors.

    Examples:
        >>> Local(4, threads=1).size(n_units=2, model_bytes=0)
        2
    """

    count: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (whole(value) is None or value < 1):
                refuse(name, value, "at least 1", f"write for example {name}=2, or leave it out")

    def check(self) -> None:
        """Nothing is needed."""

    def size(self, n_units: int, model_bytes: int) -> int:
        """See `Crew.size`."""
        if self.count is not None:
            return min(self.count, n_units)
        fitting = psutil.virtual_memory().available // (2 * model_bytes + _LIBRARIES)
        return max(1, min(len(_gpus()) or min(_processors(), fitting), n_units))

    def start(self, job: Job, slots: Sequence[int], size: int) -> list[Running]:
        """See `Crew.start`."""
        threads, gpus = self.threads or max(1, _processors() // size), _gpus()
        logs = job.board.logs
        logs.mkdir(parents=True, exist_ok=True)
        started: list[Running] = []
        for slot in slots:
            env = os.environ | dict.fromkeys(_THREADS, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
            if gpus:
                env["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
            started.append(_Process(slot, *_begun(job, env, logs / f"worker-{slot}.txt")))
        return started


def _begun(job: Job, env: dict[str, str], log: Path) -> tuple[subprocess.Popen[bytes], Path]:
    # The child sees the end of its input when this process is gone, however it ended.
    with log.open("wb") as file:
        command = [sys.executable, "-c", _MAIN, json.dumps(asdict(job))]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=env), log


@final
class _Process(Running):
    def __init__(self, slot: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.slot, self._process, self._log = slot, process, log

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as its children name them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]

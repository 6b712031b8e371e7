"""How long all of dlens takes to import beside torch."""

from __future__ import annotations

import statistics
import subprocess
import sys

__all__ = ["import_seconds"]

CODE = "import time, torch; start = time.perf_counter(); import dlens.public; print(time.perf_counter() - start)"


def import_seconds(rounds: int) -> float:
    """Median seconds of importing the public names in a new process that has imported torch."""
    run = [sys.executable, "-c", CODE]
    times = [float(subprocess.run(run, check=True, capture_output=True, text=True).stdout) for _ in range(rounds)]
    return statistics.median(times)

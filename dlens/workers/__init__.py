"""Workers: processes, jobs and actors that compute units of a long computation, each once, into one folder.

`run.py` is who asks and waits, `worker.py` one that computes, `claims.py` how several share the units; a kind of worker
is a file: `local.py`, `slurm.py`, `ray.py`, `here.py`.
"""

from dlens.workers.here import Here
from dlens.workers.local import Local
from dlens.workers.ray import Ray
from dlens.workers.slurm import Slurm

__all__ = ["Here", "Local", "Ray", "Slurm"]

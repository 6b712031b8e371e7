"""Benchmarks: problems with exact scores, generated from a seed.

`trio-math` and `trio-code` are what the shipped models were trained for; `get` finds a task by its name.
"""

from dlens.tasks.named import get, names
from dlens.tasks.task import Problem, Task
from dlens.tasks.trio_code import TrioCode
from dlens.tasks.trio_math import TrioMath

__all__ = ["Problem", "Task", "TrioCode", "TrioMath", "get", "names"]

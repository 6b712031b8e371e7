"""Benchmarks: problems with exact scores, drawn from a seed or from a file.

`trio-math` and `trio-code` are what the shipped models were trained for; `from_file` reads GSM8K, MATH-500,
HumanEval and MBPP; `get` finds a task by its name.
"""

from dlens.tasks.files import from_file
from dlens.tasks.named import get, names
from dlens.tasks.task import Problem, Task
from dlens.tasks.trio_code import TrioCode
from dlens.tasks.trio_math import TrioMath

__all__ = ["Problem", "Task", "TrioCode", "TrioMath", "from_file", "get", "names"]

"""The tasks by name."""

from __future__ import annotations

from dlens.tasks.task import Task
from dlens.tasks.trio_code import TrioCode
from dlens.tasks.trio_math import TrioMath

__all__ = ["get", "names"]

_TASKS: dict[str, Task] = {task.name: task for task in (TrioMath(), TrioCode())}


def names() -> tuple[str, ...]:
    """The names that `get` knows.

    >>> names()
    ('trio-math', 'trio-code')
    """
    return tuple(_TASKS)


def get(name: str) -> Task:
    """A task by its name.

    Raises:
        ValueError: there is no such task.

    >>> get("trio-math").problems(8)[5].steps
    2
    """
    if name not in _TASKS:
        raise ValueError(f"task {name!r}; expected one of {', '.join(_TASKS)}; check the spelling")
    return _TASKS[name]

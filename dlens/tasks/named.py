"""The tasks by name."""

from __future__ import annotations

from pathlib import Path

from dlens.axes import respell
from dlens.checks import as_flag, quoted
from dlens.tasks.files import FORMATS, from_file
from dlens.tasks.task import Task
from dlens.tasks.trio_code import TrioCode
from dlens.tasks.trio_math import TrioMath

__all__ = ["get", "names"]

_TASKS: dict[str, Task] = {task.name: task for task in (TrioMath(), TrioCode())}


def names() -> tuple[str, ...]:
    """The names of the tasks that need no file.

    Examples:
        >>> names()
        ('trio-math', 'trio-code')
    """
    return tuple(_TASKS)


def get(
    name: str | Task, *, shots: int | None = None, examples: str | Path | None = None, allow_code: bool = False
) -> Task:
    """A task by its name, or a benchmark from a file as `format:path`, such as `gsm8k:test.jsonl`.

    Args:
        name: "trio-math", "trio-code", "gsm8k:PATH", "math500:PATH", "humaneval:PATH", "mbpp:PATH" or
            "mbpp_sanitized:PATH"; a task is what it is.
        shots, examples: of a benchmark from a file; see `from_file`.
        allow_code: programs that the model writes may be run; see `from_file`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: what math500 needs is not installed.
        ValueError: there is no such task, or it has no such option.

    Examples:
        >>> get("trio-math").problems(8)[5].steps
        2
    """
    as_flag(allow_code, "allow_code")
    if isinstance(name, Task) and shots is None and examples is None:
        return name
    if isinstance(name, Task):
        raise ValueError(
            f"shots={quoted(shots)}, examples={examples} with the task {name.name}, which is made; expected its name "
            f"with them; leave both out, or make another with dlens.tasks.from_file"
        )
    if not isinstance(name, str):
        raise ValueError(f"task {quoted(name)}; expected a task, or its name; write for example 'trio-math'")
    format, colon, path = name.partition(":")
    if colon and format in FORMATS:
        return from_file(path, format, shots=shots, examples=examples, allow_code=allow_code)
    if name not in _TASKS:
        known = [*_TASKS, *(f"{format}:PATH" for format in FORMATS)]
        raise ValueError(f"task {name!r}; expected one of {', '.join(known)}; {respell(name, known)}")
    if shots is not None or examples is not None:
        raise ValueError(
            f"shots={shots}, examples={examples} with {name}; expected neither, as its prompts hold no examples; leave "
            f"both out"
        )
    return _TASKS[name]

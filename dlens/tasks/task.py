"""What a task is: problems that a seed draws, and an exact score of a continuation."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from dlens.checks import check_fields, quoted, require_word, whole
from dlens.digest import class_digest, value_digest

__all__ = ["SPLITS", "Problem", "Task", "check_drawn", "check_split", "task_identity"]

SPLITS = ("train", "test")


@final
@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        prompt: text for the model, taken as it is.
        answer: the right continuation, worked, with the space or line break that begins it.
        steps: operations that the answer takes, which is the level of difficulty; None where nobody counted.
        key: what the problem is, whatever its wording; it decides the split of a drawn task, and
            names an entry of a file.

    Examples:
        >>> Problem(prompt="2 + 2 =", answer=" 4", steps=1, key="2 +2").answer
        ' 4'
    """

    prompt: str
    answer: str
    steps: int | None
    key: str

    def __post_init__(self) -> None:
        check_fields(self, "give prompt, answer and key as text, as a task draws them")


class Task(ABC):
    """Problems of one kind, and how an answer is scored.

    Subclasses are values without state: `name`, `max_new_tokens` (room for the longest answer),
    `problems` and `score`.

    Examples:
        >>> class Doubling(Task):
        ...     name, max_new_tokens = "doubling", 4
        ...     def problems(self, n, seed=0, split="test"):
        ...         return tuple(Problem(f"{i} + {i} =", f" {2 * i}", 1, str(i)) for i in range(n))
        ...     def score(self, problem, continuation):
        ...         return continuation.split()[:1] == problem.answer.split()
        >>> task = Doubling()
        >>> task.score(task.problems(3)[2], " 4 and so on")
        True
    """

    name: str
    max_new_tokens: int

    @abstractmethod
    def problems(self, n: int, seed: int = 0, split: str = "test") -> tuple[Problem, ...]:
        """Draw problems of one split; the same arguments give the same, and a larger n only adds to them.

        Raises:
            ValueError: there are not so many, or no such split.
        """

    @abstractmethod
    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether a continuation of the prompt answers the problem, exactly: True or False, no share."""


def check_split(split: str) -> None:
    """Refuse a split that is not one.

    Raises:
        ValueError: it is neither "train" nor "test".
    """
    require_word("split", split, SPLITS)


def task_identity(task: Task) -> str:
    """The name of a task by all that an answer's score depends on: its code, its settings and what it holds.

    Code is followed through whatever it names, to other modules too, up to the libraries; a task that holds what cannot
    be read, such as an open file, has a new name at every call.

    Examples:
        >>> from dlens import tasks
        >>> task_identity(tasks.get("trio-math")) == task_identity(tasks.get("trio-code"))
        False
    """
    facts = (task.name, task.max_new_tokens, class_digest(type(task)), value_digest(task))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def check_drawn(n: int, seed: int, split: str) -> None:
    """Refuse what does not say which problems are to be drawn.

    Raises:
        ValueError: numbers that are not whole, or an unknown split.
    """
    for name, number in {"n": n, "seed": seed}.items():
        if whole(number) is None:
            raise ValueError(f"{name}={quoted(number)}; expected a whole number; pass an int, such as 8")
    check_split(split)

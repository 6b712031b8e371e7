"""What a benchmark from a file is: entries with keys, drawn without replacement, and where an answer ends."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dlens.tasks.task import Problem, Task, check_drawn

__all__ = ["Benchmark", "Entry", "first_shots", "until"]

Entry = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Benchmark(Task):
    """Problems that a file holds; made by `from_file`.

    Args:
        path: the file.
        entries: what it holds, key -> entry, in its order.
        shots: worked examples that begin every prompt.
    """

    path: Path
    entries: Mapping[str, Entry] = field(repr=False)
    shots: tuple[Entry, ...] = field(default=(), repr=False)

    @abstractmethod
    def keys(self, split: str) -> Sequence[str]:
        """The entries of a split, worked examples left out."""

    @abstractmethod
    def problem(self, key: str) -> Problem:
        """An entry as a problem."""

    @final
    def problems(self, n: int, seed: int = 0, split: str = "test") -> tuple[Problem, ...]:
        """Draw problems of one split without replacement.

        The same arguments give the same problems, and a larger n only adds to them.

        Args:
            n: problems.
            seed: any integer; it decides the order.
            split: "test", or "train" where the format has one.

        Raises:
            ValueError: the file holds fewer, or the format has no such split.
        """
        check_drawn(n, seed, split)
        keys = list(self.keys(split))
        if not 1 <= n <= len(keys):
            raise ValueError(
                f"n={n} {split} problems of {self.path}; expected 1 to {len(keys)}, as it holds no more; take fewer, "
                f"or give a file with more"
            )
        random.Random(f"{self.name} {split} {seed}").shuffle(keys)
        return tuple(self.problem(key) for key in keys[:n])

    @final
    def only_test(self, split: str) -> None:
        """Refuse a training split, for formats that keep it in a file of its own.

        Raises:
            ValueError: the split is not "test".
        """
        if split != "test":
            raise ValueError(
                f"split={split!r} of {self.path}; expected 'test', as a {self.name} file is one split; open the "
                f"training file as a task of its own"
            )


def first_shots(entries: Sequence[Entry], shots: int, path: Path) -> tuple[Entry, ...]:
    """The first entries, as worked examples.

    Raises:
        ValueError: there are not so many.
    """
    if not 0 <= shots <= len(entries):
        raise ValueError(
            f"shots={shots} from {path}; expected 0 to {len(entries)}, the worked examples that it offers; take fewer, "
            f"or name another file with examples="
        )
    return tuple(entries[:shots])


def until(text: str, stops: Sequence[str]) -> str:
    """What comes before the first of some stop sequences.

    Examples:
        >>> until(" 4 #### 4 Question: and", ["Question:", "</s>"])
        ' 4 #### 4 '
    """
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]

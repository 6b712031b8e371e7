"""HumanEval: Python functions to be completed, and run against tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from dlens.tasks.benchmark import Benchmark, until
from dlens.tasks.entries import read_entries
from dlens.tasks.running_code import passes, require_permission
from dlens.tasks.task import Problem

__all__ = ["HumanEval"]

FIELDS = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str}
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


@final
@dataclass(frozen=True, eq=False)
class HumanEval(Benchmark):
    """HumanEval as published: signature and docstring are the prompt, tests are run on the completion.

    The prompt is that of the file, without examples. The completion ends before the first line
    that begins with `class`, `def`, `#`, `if` or `print`. Right is a program of prompt, completion,
    tests and `check(entry_point)` that runs to its end, so the share of right answers is pass@1. It
    runs under the limits of `dlens.tasks.running_code.passes`, which is no security sandbox.

    Args:
        allow_code: programs that the model writes may be run.

    Source: Chen et al. 2021, arXiv:2107.03374, sections 2.1 and 3.2.
    """

    allow_code: bool = False

    name = "humaneval"
    max_new_tokens = 512

    def __post_init__(self) -> None:
        require_permission(f"humaneval:{self.path}", self.allow_code)

    @classmethod
    def read(cls, path: Path, allow_code: bool = False) -> HumanEval:
        """The task of a file with the fields of HumanEval.jsonl.

        Raises:
            ValueError: the file holds something else, or code may not be run.
        """
        entries = {entry["task_id"]: entry for entry in read_entries(path, FIELDS)}
        return cls(path, entries, allow_code=allow_code)

    def keys(self, split: str) -> Sequence[str]:
        self.only_test(split)
        return list(self.entries)

    def problem(self, key: str) -> Problem:
        entry = self.entries[key]
        return Problem(entry["prompt"], entry["canonical_solution"], None, key)

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether the completed function passes its tests."""
        entry = self.entries[problem.key]
        completed = problem.prompt + until(continuation, STOPS)
        return passes(completed, checks=f"{entry['test']}\ncheck({entry['entry_point']})")

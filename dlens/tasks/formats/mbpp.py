"""MBPP, whole or sanitized: short Python programs, asked for in words and run against their tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from dlens.checks import as_flag
from dlens.tasks.benchmark import Benchmark, Entry, first_shots, until
from dlens.tasks.entries import read_entries
from dlens.tasks.running_code import passes, require_permission
from dlens.tasks.task import Problem

__all__ = ["STOPS", "Mbpp", "code_of", "entries_of", "sanitized_entries"]

FIELDS = {"task_id": int, "text": str, "code": str, "test_list": list}
SANITIZED_FIELDS = {"task_id": int, "prompt": str, "code": str, "test_list": list, "test_imports": list}
# By task_id, as published: 1 to 10 are for prompts, 511 to 600 for validation.
EXAMPLES = (2, 3, 4)
SPLIT = {"test": range(11, 511), "train": range(601, 975)}
STOPS = ("[DONE]",)

_FENCED = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


@final
@dataclass(frozen=True, eq=False)
class Mbpp(Benchmark):
    """MBPP as published, or its sanitized part: three worked examples, the task with its tests, and the code between
    `[BEGIN]` and `[DONE]`.

    Examples are tasks 2, 3 and 4, the test split is tasks 11 to 510, the training split 601 to
    974. The answer ends at `[DONE]`; where it holds code fences it is what the first fence holds, as
    in lm-evaluation-harness. Right is a program of answer, setup and tests that runs to its end. It
    runs under the limits of `dlens.tasks.running_code.passes`, which is no security sandbox. The sanitized
    tasks keep their numbers and have texts, tests and programs of their own.

    Args:
        allow_code: programs that the model writes may be run.
        name: "mbpp", or "mbpp_sanitized".

    Source: Austin et al. 2021, arXiv:2108.07732, and the README of the data set.
    """

    allow_code: bool = False
    name: str = "mbpp"

    max_new_tokens = 256

    def __post_init__(self) -> None:
        require_permission(f"{self.name}:{self.path}", self.allow_code)

    @classmethod
    def read(
        cls,
        path: Path,
        shots: int = len(EXAMPLES),
        examples: Path | None = None,
        allow_code: bool = False,
        sanitized: bool = False,
    ) -> Mbpp:
        """The task of a file with the fields of mbpp.jsonl, or of sanitized-mbpp.json.

        Raises:
            ValueError: the file holds something else or lacks the examples, or code may not be run.
        """
        read = sanitized_entries if as_flag(sanitized, "sanitized") else entries_of
        entries = read(path)
        source = entries if examples is None else read(examples)
        by_id = {entry["task_id"]: entry for entry in source}
        offered = [by_id[number] for number in EXAMPLES if number in by_id]
        name = "mbpp_sanitized" if sanitized else "mbpp"
        held = {f"{name}/{entry['task_id']}": entry for entry in entries}
        return cls(path, held, first_shots(offered, shots, examples or path), allow_code, name)

    def keys(self, split: str) -> Sequence[str]:
        return [key for key, entry in self.entries.items() if entry["task_id"] in SPLIT[split]]

    def problem(self, key: str) -> Problem:
        entry = self.entries[key]
        shots = [f"{_request(shot)}{shot['code']}\n[DONE]" for shot in self.shots]
        return Problem("\n\n".join([*shots, _request(entry)]), f"{entry['code']}\n[DONE]", None, key)

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether the program passes its tests."""
        entry = self.entries[problem.key]
        checks = "\n".join([entry.get("test_setup_code", ""), *entry["test_list"]])
        return passes(code_of(until(continuation, STOPS)), checks=checks)


def entries_of(path: Path) -> list[Entry]:
    """The entries of mbpp.jsonl.

    Raises:
        ValueError: the file holds something else.
    """
    return list(read_entries(path, FIELDS))


def sanitized_entries(path: Path) -> list[Entry]:
    """The entries of sanitized-mbpp.json, with the names that mbpp.jsonl has for their parts.

    Raises:
        ValueError: the file holds something else.
    """
    return [
        {
            "task_id": entry["task_id"],
            "text": entry["prompt"],
            "code": entry["code"],
            "test_setup_code": "\n".join(entry["test_imports"]),
            "test_list": entry["test_list"],
        }
        for entry in read_entries(path, SANITIZED_FIELDS)
    ]


def code_of(answer: str) -> str:
    """The program in an answer: what its first code fence holds, or all of it where it has none.

    Examples:
        >>> code_of("Here it is:\\n```python\\nx = 1\\n```\\nDone."), code_of("x = 1")
        ('x = 1\\n', 'x = 1')
    """
    fenced = _FENCED.search(answer)
    return fenced[1] if fenced else answer


def _request(entry: Entry) -> str:
    tests = "\n".join(entry["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {entry['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )

"""GSM8K: word problems with worked answers, the result after `####`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from dlens.checks import as_flag
from dlens.tasks.benchmark import Benchmark, Entry, first_shots, until
from dlens.tasks.entries import read_entries
from dlens.tasks.task import Problem

__all__ = ["Gsm8k"]

SHOTS = 5
FIELDS = {"question": str, "answer": str}
STOPS = ("Question:", "</s>", "<|im_end|>")

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


@final
@dataclass(frozen=True, eq=False)
class Gsm8k(Benchmark):
    """GSM8K as lm-evaluation-harness asks and scores it (its task `gsm8k`, version 3).

    The prompt is `Question: ...` and `Answer:`, after five worked examples of the same form with a
    blank line between them. The answer ends at the next `Question:`. Right is, by default, the
    number after the first `#### ` (the harness's strict-match), compared as text without
    commas, dollar signs and a last full stop, so 18.0 is not 18.

    The harness draws other examples from the training file for each question. Here they are the first entries
    of the file of examples, the same for all questions and seeds; questions that are examples are not asked.

    Args:
        flexible: take the last number of the answer wherever it stands (flexible-extract);
            `dataclasses.replace(task, flexible=True)`.

    Source: Cobbe et al. 2021, arXiv:2110.14168.
    """

    flexible: bool = False

    name = "gsm8k"
    max_new_tokens = 256

    def __post_init__(self) -> None:
        as_flag(self.flexible, "flexible")

    @classmethod
    def read(cls, path: Path, shots: int = SHOTS, examples: Path | None = None) -> Gsm8k:
        """The task of a file whose lines hold `question` and `answer`.

        Raises:
            ValueError: the file holds something else, or too few examples.
        """
        entries = _entries(path)
        source = entries if examples is None else _entries(examples)
        held = {f"gsm8k/{number}": entry for number, entry in enumerate(entries)}
        return cls(path, held, first_shots(source, shots, examples or path))

    def keys(self, split: str) -> Sequence[str]:
        self.only_test(split)
        shown = {shot["question"] for shot in self.shots}
        return [key for key, entry in self.entries.items() if entry["question"] not in shown]

    def problem(self, key: str) -> Problem:
        entry = self.entries[key]
        shots = [f"{_question(shot)} {shot['answer']}" for shot in self.shots]
        return Problem("\n\n".join([*shots, _question(entry)]), f" {entry['answer']}", None, key)

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether the number that the answer gives is the right one."""
        wanted = problem.answer.rpartition("#### ")[2]
        given = _last_number(continuation) if self.flexible else _marked_number(continuation)
        return given is not None and _plain(given) == _plain(wanted)


def _entries(path: Path) -> Sequence[Entry]:
    entries = read_entries(path, FIELDS)
    for number, entry in enumerate(entries, 1):
        if "#### " not in entry["answer"]:
            raise ValueError(
                f"{path}, entry {number}: an answer without '#### '; expected the result after that mark, as in GSM8K; "
                f"give a file in that format"
            )
    return entries


def _question(entry: Entry) -> str:
    return f"Question: {entry['question']}\nAnswer:"


def _plain(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")


def _marked_number(continuation: str) -> str | None:
    found = _STRICT.search(until(continuation, STOPS))
    return found and found[1]


def _last_number(continuation: str) -> str | None:
    found = _FLEXIBLE.findall(until(continuation, STOPS))
    return found[-1] if found else None

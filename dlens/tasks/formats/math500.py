r"""MATH-500: competition mathematics with worked solutions, the result in `\boxed{}`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import final

from dlens.tasks.benchmark import Benchmark, Entry, first_shots, until
from dlens.tasks.entries import read_entries
from dlens.tasks.task import Problem

__all__ = ["MINERVA", "Math500", "same_result"]

EXAMPLE = {"problem": str, "solution": str}
FIELDS = EXAMPLE | {"answer": str, "unique_id": str}
STOPS = ("Problem:",)
SHOTS = 4
MINERVA = Path(__file__).with_name("minerva.jsonl")
"""The worked examples of Minerva (Lewkowycz et al. 2022, arXiv:2206.14858, appendix D.2)."""

# Longest wait for a text to be read, and for two results to be compared.
_SECONDS = 5


@final
@dataclass(frozen=True, eq=False)
class Math500(Benchmark):
    """MATH-500 as lm-evaluation-harness asks it (its task `minerva_math500`): Minerva's four worked examples.

    The prompt is `Problem:`, the problem, and `Solution:`, after the examples in the same form with a blank line
    between them. The answer ends at the next `Problem:`. Right is what math-verify finds equal to the result: it reads
    the last boxed or final answer as mathematics, so 0.5 is 1/2. The harness reports that as `math_verify`.

    Source: Hendrycks et al. 2021, arXiv:2103.03874; the 500 problems of Lightman et al. 2023, arXiv:2305.20050.
    """

    name = "math500"
    max_new_tokens = 512

    def __post_init__(self) -> None:
        if find_spec("math_verify") is None:
            raise ImportError(
                f"math500:{self.path} compares results with math-verify, which is not installed; expected it beside "
                f"dlens; pip install 'dlens[eval]'"
            )

    @classmethod
    def read(cls, path: Path, shots: int = SHOTS, examples: Path = MINERVA) -> Math500:
        """The task of a file with the fields of MATH-500's test.jsonl.

        Raises:
            ValueError: the file holds something else, or too few examples.
            ImportError: math-verify is not installed.
        """
        held = {entry["unique_id"]: entry for entry in read_entries(path, FIELDS)}
        return cls(path, held, first_shots(read_entries(examples, EXAMPLE), shots, examples))

    def keys(self, split: str) -> Sequence[str]:
        self.only_test(split)
        shown = {shot["problem"] for shot in self.shots}
        return [key for key, entry in self.entries.items() if entry["problem"] not in shown]

    def problem(self, key: str) -> Problem:
        entry = self.entries[key]
        shots = [f"{_question(shot)} {shot['solution']}" for shot in self.shots]
        return Problem("\n\n".join([*shots, _question(entry)]), f" {entry['solution']}", None, key)

    def score(self, problem: Problem, continuation: str) -> bool:
        """Whether the result that the answer gives equals the right one."""
        return same_result(self.entries[problem.key]["answer"], until(continuation, STOPS))


def same_result(result: str, answer: str) -> bool:
    r"""Whether a worked answer comes to a result, as mathematics.

    Args:
        result: LaTeX, as it stands in `\boxed{}`.
        answer: text with a result in it.

    Examples:
        >>> same_result(r"\frac{1}{2}", r"So it is $\boxed{0.5}$."), same_result("3", "It is $4$.")
        (True, False)
    """
    from math_verify import parse, verify

    # The time is kept by a signal, which only the main thread gets.
    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else 0
    right, given = (parse(text, parsing_timeout=seconds) for text in (rf"\boxed{{{result}}}", answer))
    return bool(verify(right, given, timeout_seconds=seconds))


def _question(entry: Entry) -> str:
    return f"Problem:\n{entry['problem']}\n\nSolution:"

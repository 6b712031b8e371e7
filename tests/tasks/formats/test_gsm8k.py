"""GSM8K: the prompt as published, and both rules of lm-evaluation-harness."""

from dataclasses import replace
from pathlib import Path

import pytest

from dlens import tasks
from dlens.tasks import Problem
from dlens.tasks.formats.gsm8k import Gsm8k

PATH = Path(__file__).parents[1] / "data" / "gsm8k.jsonl"
TASK = Gsm8k.read(PATH, shots=0)
PROBLEMS = {p.key: p for p in TASK.problems(8)}


def solved(result: str) -> Problem:
    return next(p for p in PROBLEMS.values() if p.answer.endswith(f"#### {result}"))


def test_the_prompt() -> None:
    assert PROBLEMS["gsm8k/2"].prompt == "Question: A jar holds 20 beans. 6 are eaten. How many are left?\nAnswer:"
    prompt = Gsm8k.read(PATH, shots=2).problem("gsm8k/2").prompt
    assert prompt == (
        "Question: A boat has 3 rows of 4 seats. How many seats has it?\n"
        "Answer: Each row has 4 seats, so there are 3*4=<<3*4=12>>12 seats.\n#### 12\n\n"
        "Question: Mia reads 5 pages a day. How many pages does she read in a week?\n"
        "Answer: A week has 7 days.\nShe reads 5*7=<<5*7=35>>35 pages.\n#### 35\n\n"
        "Question: A jar holds 20 beans. 6 are eaten. How many are left?\nAnswer:"
    )


def test_examples_are_not_asked(tmp_path: Path) -> None:
    assert {p.key for p in tasks.from_file(PATH, "gsm8k").problems(3)} == {"gsm8k/5", "gsm8k/6", "gsm8k/7"}
    other = tmp_path / "train.jsonl"
    other.write_text("\n".join(PATH.read_text(encoding="utf-8").splitlines()[6:]), encoding="utf-8")
    task = tasks.from_file(PATH, "gsm8k", shots=1, examples=other)
    assert {p.key for p in task.problems(7)} == set(PROBLEMS) - {"gsm8k/6"}
    assert task.problems(1)[0].prompt.startswith("Question: The water stands at 3 metres")


@pytest.mark.parametrize(
    ("result", "continuation", "strict", "flexible"),
    [
        ("12", " 7+5=12.\n#### 12", True, True),
        ("12", " 7+5=12.\n#### 12.\n", True, True),
        ("12", " #### $12", False, True),
        ("12", " It is $12.", False, True),
        ("12", " #### 12 #### 13", True, False),
        ("12", " #### 13 #### 12", False, True),
        ("12", "####12", False, True),
        ("12", " #### 12.0", False, False),
        ("12", " #### 12\n\nQuestion: What is 1+1?\nAnswer: #### 2", True, True),
        ("12", "Question: #### 12", False, False),
        ("12", " #### 12</s> 13", True, True),
        ("12", " #### 120", False, False),
        ("12", " #### 12 of 13", True, False),
        ("1,250", " #### 1250", True, True),
        ("1,250", " #### 1,250.,", True, True),
        ("-2", " #### -2", True, True),
        ("-2", " #### 2", False, False),
        ("-2", " 3-5=-2", False, True),
        ("-2", " #### - 2", False, False),
        ("9", " #### \N{FULLWIDTH DIGIT NINE}", False, False),
        ("9", " nine", False, False),
    ],
)
def test_the_rules(result: str, continuation: str, strict: bool, flexible: bool) -> None:
    problem = solved(result)
    assert TASK.score(problem, continuation) == strict
    assert replace(TASK, flexible=True).score(problem, continuation) == flexible

"""HumanEval and MBPP: prompts as published, where answers end, and that tests decide."""

from pathlib import Path

import pytest

from dlens.tasks import Problem
from dlens.tasks.humaneval import HumanEval
from dlens.tasks.mbpp import Mbpp

DATA = Path(__file__).parent / "data"
HUMANEVAL = HumanEval.read(DATA / "humaneval.jsonl", allow_code=True)
MBPP = Mbpp.read(DATA / "mbpp.jsonl", allow_code=True)
PLUS_ONE = HUMANEVAL.problem("HumanEval/0")
DOUBLE = MBPP.problem("mbpp/11")


def test_humaneval_prompts_are_those_of_the_file() -> None:
    assert PLUS_ONE == Problem(
        'def plus_one(x: int) -> int:\n    """The next number.\n    >>> plus_one(3)\n    4\n    """\n',
        "    return x + 1\n",
        None,
        "HumanEval/0",
    )


@pytest.mark.parametrize("stop", ["class", "def", "#", "if", "print"])
def test_a_completion_ends_at_the_next_statement(stop: str) -> None:
    assert HUMANEVAL.score(PLUS_ONE, f"    return x + 1\n{stop} !!")
    assert not HUMANEVAL.score(PLUS_ONE, f"    pass\n{stop} !!\n    return x + 1\n")


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("    # words\n    y = x\n    return y + 1", True),
        ("    return 1 + x\n\n\n    unreached = 5\n", True),
        ("    return x + 2", False),
        ("    return 4", False),
        ("return x + 1", False),
        ("    return x +", False),
        ("    exit()", False),
        ("    return x + 1\nexit()", False),
        ("    return x + 1\nimport os; os._exit(0)", False),
        ("    return x + 1\nraise SystemExit(0)", False),
    ],
)
def test_only_what_passes_is_right(completion: str, right: bool) -> None:
    assert HUMANEVAL.score(PLUS_ONE, completion) == right


def test_the_mbpp_prompt() -> None:
    ask = "You are an expert Python programmer, and here is your task: "
    assert Mbpp.read(DATA / "mbpp.jsonl", shots=1, allow_code=True).problem("mbpp/11").prompt == (
        f"{ask}Write a function to add two numbers. Your code should pass these tests:\n\n"
        "assert add(1, 2) == 3\nassert add(0, 0) == 0\nassert add(-1, 1) == 0\n"
        "[BEGIN]\ndef add(a, b):\r\n    return a + b\n[DONE]\n\n"
        f"{ask}Write a function to double a number. Your code should pass these tests:\n\n"
        "assert double(2) == 4\nassert double(0) == 0\nassert double(-3) == -6\n"
        "[BEGIN]\n"
    )
    assert DOUBLE.prompt.count("[BEGIN]") == 4 and DOUBLE.prompt.count("[DONE]") == 3
    assert DOUBLE.answer == "def double(n):\n    return 2 * n\n[DONE]"


def test_mbpp_splits_are_by_number() -> None:
    assert {p.key for p in MBPP.problems(3)} == {"mbpp/11", "mbpp/12", "mbpp/510"}
    assert {p.key for p in MBPP.problems(1, split="train")} == {"mbpp/601"}


def test_examples_of_mbpp_may_come_from_another_file(tmp_path: Path) -> None:
    lines = (DATA / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()
    tests, prompts = tmp_path / "tests.jsonl", tmp_path / "prompts.jsonl"
    tests.write_text("\n".join(lines[4:]), encoding="utf-8")
    prompts.write_text("\n".join(lines[:4]), encoding="utf-8")
    assert Mbpp.read(tests, examples=prompts, allow_code=True).problem("mbpp/11") == DOUBLE


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("def double(n):\n    return n + n\n[DONE]\nassert False", True),
        ("def double(n):\r\n    return n + n\r\n[DONE]", True),
        ("```python\ndef double(n):\n    return n + n\n```\nThis doubles n.", True),
        ("Here:\n```\ndef double(n):\n    return n + n\n```\n[DONE]", True),
        ("[DONE]\ndef double(n):\n    return n + n", False),
        ("def double(n):\n    return n * n\n[DONE]", False),
        ("def twice(n):\n    return n + n\n[DONE]", False),
        ("def double(n):\n    return n + n\n\nquit()\n[DONE]", False),
    ],
)
def test_what_counts_as_a_program(answer: str, right: bool) -> None:
    assert MBPP.score(DOUBLE, answer) == right


def test_setup_runs_before_the_tests() -> None:
    box = MBPP.problem("mbpp/12")
    assert MBPP.score(box, box.answer)
    assert not MBPP.score(box, "def value(box):\n    return box.value\n[DONE]")

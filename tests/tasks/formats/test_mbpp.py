"""MBPP: prompts as published, what counts as a program, and that tests decide."""

from pathlib import Path

import pytest

from dlens.tasks.formats.mbpp import Mbpp, code_of, entries_of, sanitized_entries

DATA = Path(__file__).parents[1] / "data"
MBPP = Mbpp.read(DATA / "mbpp.jsonl", allow_code=True)
DOUBLE = MBPP.problem("mbpp/11")


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


def test_the_sanitized_part_asks_and_checks_in_its_own_words() -> None:
    task = Mbpp.read(DATA / "mbpp_sanitized.json", allow_code=True, sanitized=True)
    assert task.name == "mbpp_sanitized"
    assert task.problem("mbpp_sanitized/11").prompt == DOUBLE.prompt.replace(" Write", " Please write")
    assert {p.key for p in task.problems(3)} == {f"mbpp_sanitized/{number}" for number in (11, 12, 510)}
    box = task.problem("mbpp_sanitized/12")
    assert task.score(box, box.answer) and not task.score(box, "def value(box):\n    return box.value\n[DONE]")


def test_both_files_give_the_same_parts() -> None:
    whole, part = entries_of(DATA / "mbpp.jsonl"), sanitized_entries(DATA / "mbpp_sanitized.json")
    assert [set(entry) for entry in part] == [{"task_id", "text", "code", "test_setup_code", "test_list"}] * len(whole)
    for name in ("task_id", "code", "test_setup_code", "test_list"):
        assert [entry[name] for entry in part] == [entry[name] for entry in whole]


def test_a_program_is_what_the_first_fence_holds() -> None:
    assert code_of("```py\nx = 1\n```\n```\ny = 2\n```") == "x = 1\n"
    assert code_of("x = 1\n```") == "x = 1\n```"

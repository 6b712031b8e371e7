"""What holds of every task: where a prompt ends, and which answers are right."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.tasks import Problem, Task, expression, from_file, get, names
from dlens.tasks.task import task_identity

DATA = Path(__file__).parent / "data"

TASKS = pytest.mark.parametrize("task", [get(name) for name in names()], ids=names())


@TASKS
def test_prompts_end_at_a_token_boundary_and_answers_fit(task: Task, ar: dlens.Model) -> None:
    def tokens(text: str) -> list[int]:
        return ar.tokenizer(text, add_special_tokens=False)["input_ids"]

    for problem in task.problems(400, seed=3):
        prompt, whole = tokens(problem.prompt), tokens(problem.prompt + problem.answer)
        assert whole[: len(prompt)] == prompt
        assert 0 < len(whole) - len(prompt) <= task.max_new_tokens


@TASKS
def test_the_answer_of_a_problem_is_right(task: Task) -> None:
    assert all(task.score(p, p.answer) for p in task.problems(400, seed=4))


@TASKS
@pytest.mark.parametrize("wrong", ["", " ", "\n", "####", "#### ", "return", "None", "\N{SUPERSCRIPT TWO}"])
def test_an_empty_answer_is_wrong(task: Task, wrong: str) -> None:
    assert not any(task.score(p, wrong) for p in task.problems(40))


@pytest.mark.parametrize("name", ["trio-math", "trio-code"])
def test_ar_solves_problems_of_all_levels(name: str, ar: dlens.Model) -> None:
    task = get(name)
    problems = task.problems(12)
    record = dlens.trace(ar).generate([p.prompt for p in problems], max_new_tokens=task.max_new_tokens, progress=False)
    solved = sum(task.score(*pair) for pair in zip(problems, record.text, strict=True))
    assert solved >= 11


def test_settings_and_entries_are_part_of_a_task(tmp_path: Path) -> None:
    gsm8k = from_file(DATA / "gsm8k.jsonl", "gsm8k", shots=0)
    code = from_file(DATA / "humaneval.jsonl", "humaneval", allow_code=True)
    changed = tmp_path / "humaneval.jsonl"
    changed.write_text((DATA / "humaneval.jsonl").read_text().replace("assert", "assert not"))
    other = replace(code, entries=from_file(changed, "humaneval", allow_code=True).entries)  # pyright: ignore
    kinds = [gsm8k, replace(gsm8k, flexible=True), replace(gsm8k, shots=({},)), code, other]  # pyright: ignore
    assert len({task_identity(task) for task in kinds}) == len(kinds)
    assert task_identity(from_file(DATA / "gsm8k.jsonl", "gsm8k", shots=0)) == task_identity(gsm8k)


class Held(Task):
    """A task that scores by what it is given."""

    name, max_new_tokens = "held", 4

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def problems(self, n: int, seed: int = 0, split: str = "test") -> tuple[Problem, ...]:
        return tuple(Problem("a", "b", 1, str(i)) for i in range(n))

    def score(self, problem: Problem, continuation: str) -> bool:
        return bool(PATTERN.match(continuation)) and continuation in TABLE


PATTERN, TABLE = re.compile("a"), {"a": [1]}


def test_values_beside_a_task_and_helpers_elsewhere_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task, inner = Held(), Held(inner=get("trio-code"))
    kept = [task_identity(task), task_identity(get("trio-code")), task_identity(inner)]
    assert kept == [task_identity(task), task_identity(get("trio-code")), task_identity(inner)]
    monkeypatch.setattr(expression, "_value", lambda *_: 1)
    assert task_identity(get("trio-code")) != kept[1] and task_identity(inner) != kept[2]
    monkeypatch.setitem(TABLE, "b", [2])
    assert (other := task_identity(task)) != kept[0]
    monkeypatch.setattr(sys.modules[__name__], "PATTERN", re.compile("b"))
    assert task_identity(task) not in (kept[0], other)


def test_a_task_that_holds_what_cannot_be_read_is_never_the_same(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        task = Held(log=log)
        assert task_identity(task) != task_identity(task)

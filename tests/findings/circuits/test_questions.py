"""Where pairs come from."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest

from dlens.findings.circuits.questions import Question, _changed, questions
from dlens.tasks import TrioMath
from dlens.tasks.task import Problem


class Words:
    """A tokenizer for which names of three letters are single tokens."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, Any]:
        return {"input_ids": [0] * (1 if len(text) == 4 else 2)}


def test_a_number_that_comes_once_is_changed() -> None:
    problem = Problem("5 and 12 and 12", " 5 + 12 + 12 = 29", 2, "")
    for seed in range(20):
        question = _changed(problem, random.Random(seed))
        assert question is not None
        new = question.corrupted.split()[0]
        assert question.corrupted == f"{new} and 12 and 12" and question.wrong == f" {new} + 12 + 12 = 29"
        assert new != "5" and new in "12346789"


@pytest.mark.parametrize(
    ("prompt", "answer"), [("no number", " 3"), ("3 and 3", " 3"), ("3 and 4", " 3 + 4 - 3 + 4"), ("13", " 3")]
)
def test_other_problems_are_left_out(prompt: str, answer: str) -> None:
    assert _changed(Problem(prompt, answer, 1, ""), random.Random(0)) is None


def test_numbers_are_no_larger_than_the_tasks_are() -> None:
    drawn = islice(questions("trio-math", 0, None), 100)
    assert all(int(word) <= 60 for question in drawn for word in question.corrupted.split() if word.isdigit())


def test_a_task_may_be_given() -> None:
    one, two = (next(questions(task, 3, None)) for task in ("trio-math", TrioMath()))
    assert one == two


def test_names_are_single_tokens() -> None:
    drawn = list(islice(questions("ioi", 0, Words()), 50))
    for question in drawn:
        assert {len(question.right), len(question.wrong)} == {4} and question.right != question.wrong
        assert question.clean.count(question.wrong.strip()) == question.corrupted.count(question.right.strip()) == 2
    with pytest.raises(ValueError, match="the tokenizer has 0 of 27 names as single tokens; expected two"):
        next(questions("ioi", 0, lambda text, add_special_tokens: {"input_ids": [0, 0]}))


def test_words_show_both() -> None:
    assert Question("a 1 b", "a 2 b", " 1", " 2").words() == "a 1|2 b 1|2"
    assert Question("a b", "a b c", "", "").words() == "a b|a b c"


def test_an_unknown_source_is_told() -> None:
    with pytest.raises(ValueError, match=r"pairs of 'trio-maths'; expected trio-math, trio-code, 'ioi', a task or"):
        questions("trio-maths", 0, None)

"""The shipped autoregressive model solves what it was trained for, as prompts and scores must be its own."""

import pytest

import dlens
from dlens.tasks import get


@pytest.mark.parametrize("name", ["trio-math", "trio-code"])
def test_ar_solves_problems_of_all_levels(name: str, ar: dlens.Model) -> None:
    task = get(name)
    problems = task.problems(12)
    record = dlens.trace(ar).generate([p.prompt for p in problems], max_new_tokens=task.max_new_tokens, progress=False)
    solved = sum(task.score(*pair) for pair in zip(problems, record.text, strict=True))
    assert solved >= 11

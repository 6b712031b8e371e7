"""The shipped autoregressive model solves what it was trained for, as prompts and scores must be its own."""

import re

import pytest

import dlens
from dlens.tasks import get


# The shipped model saw code problems with numbers up to 20.
@pytest.mark.parametrize(("name", "largest"), [("trio-math", 60), ("trio-code", 20)])
def test_ar_solves_short_problems(name: str, largest: int, ar: dlens.Model) -> None:
    task = get(name)
    drawn = task.problems(100, levels=(1, 2))
    problems = [p for p in drawn if all(int(n) <= largest for n in re.findall(r"\d+", p.prompt))][:12]
    record = dlens.trace(ar).generate([p.prompt for p in problems], max_new_tokens=task.max_new_tokens, progress=False)
    solved = sum(task.score(*pair) for pair in zip(problems, record.text, strict=True))
    assert len(problems) == 12 and solved >= 9

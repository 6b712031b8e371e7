"""HumanEval: prompts as published, where completions end, and that tests decide."""

from pathlib import Path

import pytest

from dlens.tasks import Problem
from dlens.tasks.formats.humaneval import HumanEval

DATA = Path(__file__).parents[1] / "data"
HUMANEVAL = HumanEval.read(DATA / "humaneval.jsonl", allow_code=True)
PLUS_ONE = HUMANEVAL.problem("HumanEval/0")


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

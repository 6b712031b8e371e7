"""trio-code: the answer computes what the words say, and only an equal function is right."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dlens.tasks import Problem, TrioCode
from dlens.tasks.trio_code import POINTS

TASK = TrioCode()
PROBLEMS = TASK.problems(200, seed=5)
problems = st.sampled_from(PROBLEMS)
numbers = st.integers(-1000, 1000)


def follow(prompt: str, x: int) -> int:
    """Do what the comment says, word by word."""
    comment, head, end = prompt.split("\n")
    assert re.fullmatch(r"def \w+\(x\):", head) and end == "    return"
    for words in comment.removeprefix("# Take x, then ").removesuffix(".").split(", then "):
        verb, what = words.split()
        n = int(what) if what.isdigit() else 0
        x = {"add": x + n, "subtract": x - n, "double": 2 * x, "triple": 3 * x, "negate": -x}[verb]
    return x


def line(problem: Problem) -> tuple[int, int]:
    """Slope and intercept of the right function."""
    return follow(problem.prompt, 1) - follow(problem.prompt, 0), follow(problem.prompt, 0)


@given(problems, numbers)
def test_the_answer_is_python_for_the_words(problem: Problem, x: int) -> None:
    name = problem.prompt.partition("def ")[2].partition("(")[0]
    space: dict[str, object] = {}
    exec(problem.prompt + problem.answer, space)
    function = space[name]
    assert callable(function) and function(x) == follow(problem.prompt, x)


def test_steps_are_counted() -> None:
    assert all(p.steps == p.prompt.count(", then ") == p.answer.count("(") for p in PROBLEMS)


@given(problems, st.text())
def test_later_lines_do_not_count(problem: Problem, text: str) -> None:
    assert TASK.score(problem, problem.answer + text)
    assert not TASK.score(problem, "\n" + problem.answer)


@given(problems)
def test_an_equal_expression_is_right(problem: Problem) -> None:
    slope, intercept = line(problem)
    assert TASK.score(problem, f" {slope}*x + {intercept}")
    assert TASK.score(problem, f"({intercept}) - (x * ({-slope}))")


@given(problems, numbers, numbers)
def test_only_an_equal_expression_is_right(problem: Problem, slope: int, intercept: int) -> None:
    a, b = line(problem)
    assert TASK.score(problem, f" {a + slope} * x + {b + intercept}") == (slope == intercept == 0)


@given(problems, st.lists(st.sampled_from(POINTS), min_size=1, max_size=4))
def test_agreeing_at_some_points_is_not_enough(problem: Problem, roots: list[int]) -> None:
    extra = " * ".join(f"(x - ({root}))" for root in roots)
    assert not TASK.score(problem, f"{problem.answer.strip()} + {extra}")
    assert TASK.score(problem, f"{problem.answer.strip()} + 0 * {extra}")


@given(problems, st.sampled_from(["{}0", "{}1", "{})", "({}", "{} + 1", "-{}", "{};", "{} # done", "{}, 0", "{} or x"]))
def test_near_misses_are_wrong(problem: Problem, spelling: str) -> None:
    assert not TASK.score(problem, " " + spelling.replace("{}", problem.answer.strip()))

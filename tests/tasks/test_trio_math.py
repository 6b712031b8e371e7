"""trio-math: the story and its working agree, and only the result is right."""

import re

from hypothesis import given
from hypothesis import strategies as st

from dlens.tasks import Problem, TrioMath

TASK = TrioMath()
PROBLEMS = TASK.problems(200, seed=5)
STORY = re.compile(r"Question: (\w+) has (\d+) (\w+)\. (.*) How many (\w+) does (\w+) have now\?\nAnswer:")
problems = st.sampled_from(PROBLEMS)


def result(problem: Problem) -> int:
    return int(problem.answer.rpartition(" ")[2])


def solve(prompt: str) -> tuple[int, list[str]]:
    """Read the story anew: what there is in the end, and the sentences of the answer."""
    match = STORY.fullmatch(prompt)
    assert match is not None
    name, start, item, story, item_again, name_again = match.groups()
    assert (name, item) == (name_again, item_again)
    total, work = int(start), []
    for sentence in story.removesuffix(".").split(". "):
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        before = total
        if sentence == f"{name} loses half":
            assert total % 2 == 0
            total, done = total // 2, "/ 2"
        elif "grows" in sentence:
            total, done = total * numbers[0], f"* {numbers[0]}"
        elif "gives away" in sentence:
            total, done = total - numbers[0], f"- {numbers[0]}"
        else:
            assert sentence.endswith(" more")
            total, done = total + numbers[0], f"+ {numbers[0]}"
        assert 1 <= total <= 120
        work.append(f"{before} {done} = {total}.")
    return total, work


def test_the_working_follows_the_story() -> None:
    for problem in TASK.problems(3000, split="train") + PROBLEMS:
        total, work = solve(problem.prompt)
        assert problem.answer == f" {' '.join(work)} #### {total}"
        assert problem.steps == len(work)


@given(problems, st.text())
def test_text_before_and_after_does_not_count(problem: Problem, text: str) -> None:
    assert TASK.score(problem, f"{problem.answer}\n{text}")
    assert TASK.score(problem, f"{text.replace('#', '')}####{result(problem)}  ")


@given(problems, st.integers())
def test_only_the_result_is_right(problem: Problem, number: int) -> None:
    working = problem.answer.partition("####")[0]
    assert TASK.score(problem, f"{working}#### {number}") == (number == result(problem))


@given(
    problems, st.sampled_from(["{}0", "0{}", "-{}", "+{}", "{}.0", "{}.", "{} stars", "{} {}", "${}", "{}####", "\n{}"])
)
def test_near_misses_are_wrong(problem: Problem, spelling: str) -> None:
    working = problem.answer.partition("####")[0]
    assert not TASK.score(problem, f"{working}#### {spelling.replace('{}', str(result(problem)))}")


@given(problems)
def test_the_first_mark_counts(problem: Problem) -> None:
    assert not TASK.score(problem, f" #### {result(problem) + 1}\n{problem.answer}")
    assert not TASK.score(problem, problem.answer.replace("####", "###"))
    assert not TASK.score(problem, problem.answer.partition("####")[0])

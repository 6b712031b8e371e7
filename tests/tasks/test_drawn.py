"""Drawn tasks: seeds, splits, shares of the levels, refusals."""

import re
from collections import Counter

import pytest

from dlens.tasks import Task, get, names
from dlens.tasks.drawn import LEVELS, TEST_LIMIT, split_of

TASKS = pytest.mark.parametrize("task", [get(name) for name in names()], ids=names())
# All that may change without changing what a problem asks.
NAMES = r"Amy|Anna|Ben|Dan|Ella|Jack|Lily|Lucy|Max|Mia|Rose|Sam|Sue|Tim|Tom"
ITEMS = r"apples|balls|books|coins|cookies|eggs|flowers|pens|shells|stars|toys"
SURFACE = re.compile(rf"\b({NAMES}|{ITEMS}|buys|finds|def \w+)\b")


@TASKS
def test_a_seed_gives_the_same_problems_and_another_gives_others(task: Task) -> None:
    for split in ("train", "test"):
        first = task.problems(40, seed=1, split=split)
        assert first == task.problems(40, seed=1, split=split)
        assert first[:13] == task.problems(13, seed=1, split=split)
        assert len(set(first) & set(task.problems(40, seed=2, split=split))) < 20


@TASKS
def test_no_test_problem_is_a_training_problem_under_other_names(task: Task) -> None:
    train = {p.prompt for p in task.problems(12_000, split="train")}
    test = {p.prompt for seed in range(5) for p in task.problems(600, seed=seed)}
    stripped = [{SURFACE.sub("_", prompt) for prompt in prompts} for prompts in (train, test)]
    assert min(map(len, stripped)) > 1000
    assert not stripped[0] & stripped[1]


@TASKS
def test_the_key_is_what_remains_without_names(task: Task) -> None:
    problems = task.problems(4000, split="train") + task.problems(600)
    keys = {SURFACE.sub("_", p.prompt): p.key for p in problems}
    assert all(keys[SURFACE.sub("_", p.prompt)] == p.key for p in problems)
    assert len(set(keys.values())) == len(keys)


@TASKS
def test_one_key_in_four_is_for_the_test(task: Task) -> None:
    keys = {p.key for split in ("train", "test") for p in task.problems(600, split=split)}
    assert {split_of(task.name, p.key) for p in task.problems(600)} == {"test"}
    assert {split_of(task.name, p.key) for p in task.problems(600, split="train")} == {"train"}
    made_up = [split_of(task.name, f"{key} {i}") for key in keys for i in range(5)]
    assert 0.22 < made_up.count("test") / len(made_up) < 0.28


@TASKS
@pytest.mark.parametrize("split", ["train", "test"])
def test_steps_have_equal_shares(task: Task, split: str) -> None:
    assert Counter(p.steps for p in task.problems(500, split=split)) == dict.fromkeys(LEVELS, 125)
    assert Counter(p.steps for p in task.problems(7, split=split, levels=(4, 2))) == {4: 4, 2: 3}


@TASKS
def test_test_prompts_differ_up_to_the_limit(task: Task) -> None:
    for levels in ((1,), LEVELS):
        problems = task.problems(TEST_LIMIT * len(levels), seed=7, levels=levels)
        assert len({p.prompt for p in problems}) == TEST_LIMIT * len(levels)


@TASKS
def test_no_number_is_above_60(task: Task) -> None:
    numbers = [int(n) for p in task.problems(2000, split="train") for n in re.findall(r"\d+", p.prompt)]
    assert min(numbers) == 1 and max(numbers) == 60


@TASKS
def test_what_cannot_be_drawn_is_refused(task: Task) -> None:
    for arguments, message in (
        ({"n": 0}, "n=0; expected at least 1 problem; 4 have"),
        ({"n": 601}, "n=601 test problems of 4 levels; expected at most 150 a level, 600 here; take fewer"),
        ({"n": 151, "levels": (1,)}, "n=151 test problems of 1 levels; expected at most 150 a level, 150 here; take"),
        ({"n": 4, "split": "valid"}, "split='valid'; expected one of train, test; check"),
        ({"n": 4, "levels": (1, 5)}, r"levels=\[1, 5\]; expected some of 1, 2, 3, 4, each once; leave"),
        ({"n": 4, "levels": (2, 2)}, r"levels=\[2, 2\]; expected"),
        ({"n": 4, "levels": ()}, r"levels=\[\]; expected"),
    ):
        with pytest.raises(ValueError, match=message):
            task.problems(**arguments)

"""Entries of a file are drawn without replacement, and an answer ends at the first stop."""

from pathlib import Path

import pytest

from dlens import tasks
from dlens.tasks.benchmark import Benchmark, first_shots, until
from dlens.tasks.files import FORMATS

DATA = Path(__file__).parent / "data"


def opened(format: str) -> Benchmark:
    (path,) = DATA.glob(f"{format}.json*")
    return tasks.from_file(path, format, allow_code=True)


@pytest.mark.parametrize("format", FORMATS)
def test_problems_are_drawn_without_replacement(format: str) -> None:
    task = opened(format)
    orders = {task.problems(3, seed=seed) for seed in range(8)}
    assert len(orders) > 1 and {frozenset(p.key for p in order) for order in orders} == {
        frozenset(p.key for p in task.problems(3))
    }
    assert all(len({p.key for p in order}) == 3 for order in orders)
    assert task.problems(2, seed=5) == task.problems(3, seed=5)[:2]
    assert all(p.steps is None for p in task.problems(3))


def test_until_takes_the_earliest_stop() -> None:
    assert until("a b c", ["c", "b"]) == "a "
    assert until("a b c", ["d"]) == "a b c"
    assert until("b", ["b"]) == ""


def test_examples_are_the_first_entries() -> None:
    entries = [{"n": 0}, {"n": 1}]
    assert first_shots(entries, 0, DATA) == () and first_shots(entries, 2, DATA) == ({"n": 0}, {"n": 1})
    for shots in (-1, 3):
        with pytest.raises(ValueError, match=f"shots={shots} from .*; expected 0 to 2, the worked examples .*; take"):
            first_shots(entries, shots, DATA)

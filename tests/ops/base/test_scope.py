"""When an operation acts: steps and noise, as users write them, in words and as data."""

import json

import numpy as np
import pytest
import torch

from dlens.ops.base.scope import Scope
from dlens.ops.skip import Skip
from tests.unchecked import unchecked


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        (2, [2]),
        (-1, [6]),
        ([0, -7, 3], [0, 3]),
        (range(1, 6, 2), [1, 3, 5]),
        (slice(None, 2), [0, 1]),
        (slice(5, 7), [5, 6]),
        (slice(-2, None), [5, 6]),
        (slice(None, None, 3), [0, 3, 6]),
        (slice(3, 3), []),
        ("early", [0, 1]),
        ("middle", [2, 3]),
        ("late", [4, 5, 6]),
    ],
)
def test_steps_of_a_run_of_seven(steps, named):
    assert sorted(Scope(steps).resolve(7)) == named


@pytest.mark.parametrize("third", ["early", "middle", "late"])
def test_fewer_than_three_steps_have_no_thirds(third):
    for n_steps, what in ((1, "a forward, or a run of one step"), (2, "a run of 2 steps")):
        with pytest.raises(
            ValueError, match=f"steps='{third}' of {what}; expected at least 3 steps, one a third; leave"
        ):
            Scope(third).resolve(n_steps)


@pytest.mark.parametrize("n_steps", range(3, 12))
def test_thirds_share_out_all_steps(n_steps):
    thirds = [Scope(third).resolve(n_steps) for third in ("early", "middle", "late")]
    assert sorted(step for third in thirds for step in third) == list(range(n_steps))
    assert max(map(len, thirds)) - min(map(len, thirds)) <= 1


@pytest.mark.parametrize(
    ("steps", "step"),
    [(4, 4), (-5, -5), ([1, 9], 9), (range(3, 6), 4), (slice(0, 5), 5), (slice(4, None), 4), (slice(-5, 2), -5)],
)
def test_a_step_beyond_the_run_raises(steps, step):
    with pytest.raises(IndexError, match=rf"names step {step}; expected steps 0 to 3, .*; give fewer steps"):
        Scope(steps).resolve(4)


def test_noise_is_open_below_closed_above_and_holds_zero_at_zero():
    levels = [0, 0.25, 0.3, 0.5, 1]
    assert [Scope(noise=(0.25, 0.5)).in_noise(x) for x in levels] == [False, False, True, True, False]
    assert [Scope(noise=(0, 0.25)).in_noise(x) for x in levels] == [True, True, False, False, False]
    assert [Scope(noise=(0.5, 1)).in_noise(x) for x in levels] == [False, False, False, False, True]
    assert all(Scope().in_noise(x) for x in levels)


@pytest.mark.parametrize("noise", [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_noise_that_is_no_interval_of_shares_raises(noise):
    with pytest.raises(ValueError, match=r"noise=\(.*; expected \(lo, hi\) with 0 <= lo < hi <= 1; .*noise=\(0\.5, 1"):
        Scope(noise=noise)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(), ""),
        (Scope(3), " at steps 3"),
        (Scope("late"), " at steps late"),
        (Scope(range(0, 16)), " at steps 0:16"),
        (Scope(range(1, 6, 2)), " at steps 1:6:2"),
        (Scope(range(-2, 0)), " at steps -2, -1"),
        (Scope(range(2, -1, -1)), " at steps 2, 1, 0"),
        (Scope(slice(0, 16)), " at steps 0:16"),
        (Scope(slice(None, None, 2)), " at steps ::2"),
        (Scope(noise=(0.5, 1.0)), " at noise 0.5 to 1"),
        (Scope([1], (0, 0.25)), " at steps 1 at noise 0 to 0.25"),
    ],
)
def test_scope_in_words(scope, words):
    assert scope.words() == words


@pytest.mark.parametrize("steps", [True, 1.5, [0.5], [True], torch.ones(2, dtype=torch.bool), slice(0.5, 2), "end"])
def test_steps_are_whole_numbers(steps):
    with unchecked(), pytest.raises(ValueError, match="steps?[ =].*; expected .*; "):
        Scope(steps)


def test_steps_as_data():
    def written(steps):
        return Skip(layers=(0,), scope=Scope(steps)).to_json()["steps"]

    assert written(np.int64(2)) == [2] and written(torch.arange(2)) == [0, 1] == written(range(2))
    assert written(slice(0, 16)) == {"start": 0, "stop": 16, "step": None} and written("late") == "late"
    json.dumps([written(np.arange(3)), written(slice(np.int64(0), None))])


@pytest.mark.parametrize("noise", [0.5, (0.5,), ("a", 1), (0, None), torch.tensor(0.5), (False, True)])
def test_noise_that_is_no_pair_raises(noise):
    with unchecked(), pytest.raises(ValueError, match=r"noise=.*; expected .*; "):
        Scope(noise=noise)

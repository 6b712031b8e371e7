from typing import Any

import numpy as np
import pytest

import dlens
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_the_formula_of_methods() -> None:
    """w_t = max(0, c_t - c_(t-1)) / sum, alpha_t = alpha T w_t, D = T sum w_t^2."""
    scores = [0.5, 0.6, 0.9, 0.8, 0.9]
    c = [0.0, 0.0, 0.25, 1.0, 0.75, 1.0]
    rises = [max(0, b - a) for a, b in zip(c, c[1:], strict=False)]
    weights = [rise / sum(rises) for rise in rises]
    found = dlens.plan_steering(scores, alpha=3.0, chance=0.5)
    assert found.curve == pytest.approx(c[1:])
    assert found.scales == pytest.approx([3 * 5 * w for w in weights])
    assert found.dispersion == pytest.approx(5 * sum(w**2 for w in weights))
    assert sum(found.scales) == pytest.approx(sum(found.constant)) == pytest.approx(15)


def test_one_step_and_all_alike() -> None:
    assert dlens.plan_steering([0, 0, 1.0, 1.0], alpha=1).dispersion == pytest.approx(4)
    assert dlens.plan_steering([0.25, 0.5, 0.75, 1.0], alpha=1).dispersion == pytest.approx(1)
    assert np.isnan(dlens.plan_steering([1.0, 1.0], alpha=0).dispersion)


@pytest.mark.parametrize("steps", [2, 6, 7])
def test_another_number_of_steps_keeps_the_sum(steps: int) -> None:
    found = dlens.plan_steering([0.2, 0.8, 1.0], alpha=2.0, n_steps=steps)
    assert len(found.scales) == steps and sum(found.scales) == pytest.approx(2 * steps)
    if steps == 6:
        # Each step of three is two of six.
        assert found.curve == pytest.approx([0.1, 0.2, 0.5, 0.8, 0.9, 1.0])


def test_a_step_that_was_not_read_is_as_the_one_before() -> None:
    found = dlens.plan_steering([np.nan, 0.5, np.nan, 1.0], alpha=1.0)
    assert found.curve == (0.0, 0.5, 0.5, 1.0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"scores": []}, "scores=[]"),
    ({"scores": "x"}, "scores='x'"),
    ({"scores": [[1.0]]}, "scores=[[1.0]]"),
    ({"scores": [1.0, np.nan]}, "scores="),
    ({"scores": [0.9, 0.5], "chance": 0.5}, "scores end at 0.5"),
    ({"alpha": "x"}, "alpha='x'"),
    ({"chance": None}, "chance=None"),
    ({"n_steps": 0}, "n_steps=0"),
]


@pytest.mark.parametrize(("given", "came"), WRONG)
def test_what_makes_no_schedule_is_refused(given: dict[str, Any], came: str) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.plan_steering(**{"scores": [0.5, 1.0]} | given)
    assert_three_parts(str(caught.value), came)


@pytest.mark.parametrize("field", ["scales", "alpha", "curve"])
def test_one_made_by_hand_is_checked(field: str) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.SteeringSchedule(**{"scales": (1.0,), "alpha": 1.0, "curve": (1.0,)} | {field: "x"})
    assert_three_parts(str(caught.value), f"{field}='x'")

"""Checks of settings, at their bounds."""

from typing import Any

import numpy as np
import pytest
import torch

from dlens.checks import quoted
from dlens.samplers import Autoregressive, Dream, LLaDA, Threshold
from dlens.samplers.checks import require_at_least, require_between, require_given, require_whole
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_the_least_number_passes_and_none_is_not_asked_for() -> None:
    for value in (None, 1, 1.0, 5):
        require_at_least("steps", value, 1, "a step fills tokens")
    for value in (0, 0.999, float("nan")):
        with pytest.raises(ValueError, match=f"steps={value}; expected 1 or more; a step fills tokens"):
            require_at_least("steps", value, 1, "a step fills tokens")


def test_an_interval_is_open_below_and_closed_above() -> None:
    for value in (None, 1e-9, 0.5, 1, 1.0):
        require_between("top_p", value, 0, 1, "it is a mass")
    for value in (0, -0.5, 1.001, float("nan")):
        with pytest.raises(ValueError, match=f"top_p={value}; expected more than 0 and at most 1; it is a mass"):
            require_between("top_p", value, 0, 1, "it is a mass")


def test_infinity_and_what_is_no_number_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature=inf; expected 0 or more, and finite; 0 takes the likeliest"):
        require_at_least("temperature", float("inf"), 0, "0 takes the likeliest")
    for value in ("1", True, [1]):
        with unchecked(), pytest.raises(ValueError, match=r"temperature=.*; expected 0 or more; 0 takes"):
            require_at_least("temperature", value, 0, "0 takes")  # pyright: ignore
        with unchecked(), pytest.raises(ValueError, match=r"top_p=.*; expected more than 0 and at most 1; a mass"):
            require_between("top_p", value, 0, 1, "a mass")  # pyright: ignore


def test_whole_numbers_are_of_any_integer_type() -> None:
    for value in (None, 1, np.int64(3)):
        with unchecked():
            require_whole("steps", value, 1, "a step fills tokens")  # pyright: ignore
    for value in (2.0, "2", True):
        with unchecked(), pytest.raises(ValueError, match="steps=.*; expected a whole number, 1 or more; a step"):
            require_whole("steps", value, 1, "a step fills tokens")  # pyright: ignore
    with pytest.raises(ValueError, match="steps=0; expected 1 or more; a step"):
        require_whole("steps", 0, 1, "a step fills tokens")


def test_none_is_refused_where_it_means_nothing() -> None:
    with unchecked(), pytest.raises(ValueError, match="threshold=None; expected a number; it is a probability"):
        require_given("threshold", None, "it is a probability")  # pyright: ignore


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LLaDA, {"steps": "2"}),
        (LLaDA, {"block_length": 2.0}),
        (LLaDA, {"temperature": float("inf")}),
        (LLaDA, {"guidance": float("inf")}),
        (LLaDA, {"guidance": None}),
        (LLaDA, {"remasking": 5}),
        (LLaDA, {"eos_inf": "no"}),
        (LLaDA, {"confidence_eos_inf": 1}),
        (LLaDA, {"temperature": 10**30}),
        (LLaDA, {"guidance": 1e30}),
        (LLaDA, {"steps": 10**30}),
        (Dream, {"steps": 10**30}),
        (Threshold, {"factor": 10**30}),
        (LLaDA, {"temperature": np.array([0.5, 1.0])}),
        (LLaDA, {"remasking": np.array(["random", "low_confidence"])}),
        (Dream, {"top_k": 1.5}),
        (Dream, {"alg_temp": float("inf")}),
        (Dream, {"eps": None}),
        (Dream, {"algorithm": None}),
        (Threshold, {"threshold": None}),
        (Threshold, {"factor": float("inf")}),
        (Autoregressive, {"temperature": None}),
        (Autoregressive, {"top_k": 1.5}),
    ],
)
def test_no_sampler_takes_what_it_cannot_use(kind: Any, settings: dict[str, Any]) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        kind(**settings)
    [[name, value]] = settings.items()
    assert_three_parts(str(caught.value), f"{name}={quoted(value)}")


def test_a_sampler_is_the_same_whatever_its_numbers_came_from() -> None:
    with unchecked():
        made = LLaDA(steps=np.int64(4), temperature=torch.tensor(0.5), eos_inf=np.True_)  # pyright: ignore
    assert made == LLaDA(steps=4, temperature=0.5, eos_inf=True) and repr(made) == repr(
        LLaDA(4, None, 0.5, eos_inf=True)
    )

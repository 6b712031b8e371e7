"""Checks of settings, at their bounds."""

import pytest

from dlens.samplers.checks import require_at_least, require_between, require_one_of


def test_a_word_is_one_of_those_allowed() -> None:
    require_one_of("remasking", "random", ("low_confidence", "random"))
    with pytest.raises(ValueError, match="remasking='rand'; expected one of low_confidence, random; check the spel"):
        require_one_of("remasking", "rand", ("low_confidence", "random"))


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

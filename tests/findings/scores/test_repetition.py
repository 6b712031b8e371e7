"""Repetition and distinct n-grams, counted by hand."""

from __future__ import annotations

from math import isnan

import pytest

from dlens.findings.scores.repetition import distinct, repetition


def test_repeated_grams_are_averaged_over_texts() -> None:
    # Pairs 12 21 12: one of three came before; 44 44 44: two of three.
    assert repetition([[1, 2, 1, 2]], n=2) == pytest.approx(1 / 3)
    assert repetition([[1, 2, 1, 2], [4, 4, 4, 4]], n=2) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert repetition([[1, 2, 3, 4, 5, 6]]) == 0 and repetition([[1, 1, 1, 1, 1]]) == 0.5


def test_texts_without_a_gram_are_left_out() -> None:
    assert repetition([[1, 2, 3], [1, 1, 1, 1, 1]]) == 0.5
    assert isnan(repetition([[1, 2, 3]])) and isnan(repetition([]))
    assert isnan(distinct([[1]], 2)) and isnan(distinct([], 1))


def test_distinct_grams_are_those_of_all_texts_together() -> None:
    assert distinct([[1, 2, 3], [1, 2, 4]], 1) == 4 / 6
    assert distinct([[1, 2, 3], [1, 2, 4]], 2) == 3 / 4
    assert distinct(["abc", "abd"], 3) == 1

"""Sparsities by layer and matrix: against plain loops and numbers of the published code; what is refused."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dlens.compression.allocation import alpha_ratios, linear_ratios, owl_outliers, owl_ratios
from tests.refusing import assert_three_parts


def test_linear_ratios() -> None:
    assert linear_ratios(0.5, 5, 0.2, early=True) == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3])
    assert linear_ratios(0.5, 5, 0.2, early=False) == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    assert linear_ratios(0.3, 4, 0.0, early=True) == [0.3] * 4
    assert linear_ratios(0.5, 1, 0.2, early=True) == [0.7] and linear_ratios(0.5, 1, 0.2, early=False) == [0.3]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_linear_ratios_have_their_mean(sparsity: float, early: bool) -> None:
    assert sum(linear_ratios(sparsity, 7, 0.2, early)) / 7 == pytest.approx(sparsity)


def test_owl_outliers_are_counted_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, norms = torch.randn(12, 20, generator=generator), torch.rand(20, generator=generator) ** -2
    rows, squares = weight.double().tolist(), norms.double().tolist()
    scores = [abs(w) * math.sqrt(s) for row in rows for w, s in zip(row, squares, strict=True)]
    for threshold in (2.0, 5.0):
        expected = 100 * sum(score > threshold * sum(scores) / 240 for score in scores) / 240
        assert owl_outliers(weight, norms, threshold) == pytest.approx(expected) and expected > 0
    assert owl_outliers(weight, norms) == owl_outliers(weight, norms, 5.0)
    assert owl_outliers(weight.bfloat16(), norms) == owl_outliers(weight.bfloat16().float(), norms)
    # Larger than the threshold, not as large.
    assert owl_outliers(torch.ones(2, 2), torch.ones(2), 1.0) == 0


def test_owl_outliers_that_cannot_be_counted() -> None:
    with pytest.raises(ValueError) as caught:
        owl_outliers(torch.ones(2, 3), torch.tensor([1.0, math.nan, 1.0]))
    assert_three_parts(str(caught.value), "nan")


def test_owl_ratios() -> None:
    rng = random.Random(0)
    outliers = [rng.uniform(0, 9) for _ in range(10)]
    low, high = min(outliers), max(outliers)
    keep = [(d - low) / (high - low) * 2 * 0.1 for d in outliers]
    expected = [1 - (k - sum(keep) / 10 + 1 - 0.6) for k in keep]
    assert owl_ratios(outliers, 0.6, 0.1) == pytest.approx(expected)
    # By `compute_owl_sparsity_ratios` of owl_sparsity.py in the code of arXiv 2605.06366 (super-outlier-dlm).
    assert owl_ratios([1.2, 0.3, 4.5, 0.9], 0.7) == pytest.approx([0.72, 0.754286, 0.594286, 0.731429], abs=1e-6)


def test_alpha_ratios() -> None:
    alphas, sizes = [2.5, 3.1, 1.9, 6.0], [4, 2, 6, 1]
    spread = [0.6 - 0.1 + 2 * 0.1 * (alpha - 1.9) / (6.0 - 1.9) for alpha in alphas]
    excess = sum(s * n for s, n in zip(spread, sizes, strict=True)) / 13 - 0.6
    found = alpha_ratios(alphas, sizes, 0.6, 0.1)
    assert found == pytest.approx([s - excess for s in spread])
    assert sum(s * n for s, n in zip(found, sizes, strict=True)) / 13 == pytest.approx(0.6)
    # By `compute_alpha_pruning_ratios` of alpha_pruning.py there.
    assert alpha_ratios(alphas, sizes, 0.6) == pytest.approx([0.593809, 0.637711, 0.549906, 0.849906], abs=1e-6)


def test_equal_scores_give_equal_ratios() -> None:
    assert owl_ratios([2.0, 2.0, 2.0 + 1e-7], 0.4) == [0.4] * 3
    assert alpha_ratios([3.0, 3.0], [5, 7], 0.4) == [0.4] * 2


def test_ratios_outside_of_0_to_1_are_refused() -> None:
    calls = {
        "0.9 with half_range=0.2": lambda: linear_ratios(0.9, 3, 0.2, early=True),
        "0.1 with half_range=0.2": lambda: linear_ratios(0.1, 3, 0.2, early=False),
        "0.95 with half_range=0.08": lambda: owl_ratios([0.0, 5.0], 0.95),
        "0.1 with half_range=0.15": lambda: alpha_ratios([2.0, 4.0], [3, 3], 0.1),
        "1.0 with half_range=0.15": lambda: alpha_ratios([2.0, 2.0], [3, 3], 1.0),
    }
    for came, call in calls.items():
        with pytest.raises(ValueError, match="smaller half_range") as caught:
            call()
        assert_three_parts(str(caught.value), f"sparsity={came}")
    # The ends: nothing of a matrix may go, not all.
    assert linear_ratios(0.25, 2, 0.25, early=True) == [0.5, 0.0]
    with pytest.raises(ValueError, match="number 0 of 2 a sparsity of 1;"):
        linear_ratios(0.75, 2, 0.25, early=True)


def test_scores_that_are_not_finite_are_refused() -> None:
    for call in (lambda: owl_ratios([1.0, math.nan], 0.5), lambda: alpha_ratios([1.0, math.nan], [2, 2], 0.5)):
        with pytest.raises(ValueError, match="of matrix 1 are nan; expected finite numbers; "):
            call()

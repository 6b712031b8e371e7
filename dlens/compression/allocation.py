"""How sparse each layer or matrix becomes: evenly over depth, by outliers (OWL), or by the tails of spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from jaxtyping import Float
from torch import Tensor

__all__ = ["alpha_ratios", "linear_ratios", "owl_outliers", "owl_ratios"]

# Scores that differ by less than this say nothing.
_EQUAL = 1e-6


def linear_ratios(sparsity: float, n_layers: int, half_range: float, early: bool) -> list[float]:
    """A sparsity for each layer that falls or rises evenly with depth.

    With t = l / (L - 1), 0 for a single layer: (sparsity + half_range) - 2 half_range t where early layers become
    sparser, (sparsity - half_range) + 2 half_range t where late ones do (arXiv 2605.06366's code). Nothing is clipped.

    Args:
        sparsity: the mean over layers.
        n_layers: L.
        half_range: how much the first and the last layer differ from the mean.
        early: whether early layers become the sparser ones.

    Raises:
        ValueError: a ratio outside 0 to 1.

    Examples:
        >>> linear_ratios(0.5, 3, 0.25, early=True), linear_ratios(0.5, 3, 0.25, early=False)
        ([0.75, 0.5, 0.25], [0.25, 0.5, 0.75])
    """
    first, slope = (sparsity + half_range, -2 * half_range) if early else (sparsity - half_range, 2 * half_range)
    steps = max(1, n_layers - 1)
    return _within([first + slope * (layer / steps) for layer in range(n_layers)], sparsity, half_range)


def owl_outliers(weight: Float[Tensor, "d_out d_in"], norms: Float[Tensor, " d_in"], threshold: float = 5.0) -> float:
    """How many of a matrix's scores |W_ij| sqrt(norm_j) are outliers, in percent (OWL, arXiv 2310.05175).

    Args:
        weight: the matrix.
        norms: mean square of each input, over positions.
        threshold: an outlier is larger than this many times the mean score.

    Raises:
        ValueError: scores that are not finite.

    Examples:
        >>> import torch
        >>> owl_outliers(torch.ones(4, 5), torch.tensor([1.0, 1.0, 1.0, 1.0, 10000.0]), threshold=4.0)
        20.0
    """
    scores = weight.detach().abs() * norms.sqrt()
    mean = scores.mean()
    if not bool(mean.isfinite()):
        raise ValueError(
            f"scores of a {weight.shape[0]} x {weight.shape[1]} matrix have the mean {float(mean)}; expected finite "
            f"weights and inputs; look where NaN or infinity comes from, or calibrate in float32"
        )
    return int((scores > threshold * mean).sum()) / scores.numel() * 100


def owl_ratios(outliers: Sequence[float], sparsity: float, half_range: float = 0.08) -> list[float]:
    """A sparsity for each matrix: the more outliers, the less sparse (OWL, arXiv 2310.05175).

    With D the outliers scaled to 0 to 1: sparsity - (2 half_range D - mean of 2 half_range D). The mean counts every
    matrix once, whatever its size, as published. Equal outliers give all matrices the same.

    Args:
        outliers: percent of outliers by matrix; see `owl_outliers`.
        sparsity: the mean over matrices.
        half_range: half of how far they spread.

    Raises:
        ValueError: a ratio outside 0 to 1, or outliers that are not finite.

    Examples:
        >>> [round(ratio, 3) for ratio in owl_ratios([0.0, 1.0, 2.0], 0.5, half_range=0.1)]
        [0.6, 0.5, 0.4]
    """
    keep = _scaled(outliers, half_range, "outliers")
    mean = fmean(keep)
    return _within([sparsity + mean - kept for kept in keep], sparsity, half_range)


def alpha_ratios(
    alphas: Sequence[float], n_weights: Sequence[int], sparsity: float, half_range: float = 0.15
) -> list[float]:
    """A sparsity for each matrix: the heavier its tail, the less sparse (AlphaPruning, arXiv 2410.10912).

    With A the alphas scaled to 0 to 1: (sparsity - half_range) + 2 half_range A, moved so that the mean over all
    weights is the sparsity that was asked for. Equal alphas give all matrices the same.

    Args:
        alphas: by matrix; see `dlens.spectral_alpha`.
        n_weights: how many weights each has.
        sparsity: the mean over weights.
        half_range: half of how far they spread.

    Raises:
        ValueError: a ratio outside 0 to 1, or alphas that are not finite.

    Examples:
        >>> [round(ratio, 3) for ratio in alpha_ratios([2.0, 3.0, 4.0], [100, 100, 200], 0.5)]
        [0.312, 0.463, 0.613]
    """
    spread = _scaled(alphas, half_range, "alphas")
    mean = sum(s * n for s, n in zip(spread, n_weights, strict=True)) / sum(n_weights)
    return _within([sparsity + s - mean for s in spread], sparsity, half_range)


def _scaled(scores: Sequence[float], half_range: float, what: str) -> list[float]:
    """Scores from 0 to twice the half range; all 0 where they are equal.

    Raises:
        ValueError: one is not finite.
    """
    for number, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(
                f"{what} of matrix {number} are {score}; expected finite numbers; leave the matrix out, or choose "
                f"another allocation"
            )
    low, high = min(scores), max(scores)
    if high - low < _EQUAL:
        return [0.0] * len(scores)
    return [(score - low) / (high - low) * 2 * half_range for score in scores]


def _within(ratios: list[float], sparsity: float, half_range: float) -> list[float]:
    """Ratios as they are.

    Raises:
        ValueError: one is outside 0 to 1: nothing is clipped, as the mean would be another.
    """
    for number, ratio in enumerate(ratios):
        if not 0 <= ratio < 1:
            raise ValueError(
                f"sparsity={sparsity} with half_range={half_range} gives number {number} of {len(ratios)} a sparsity "
                f"of {ratio:.4g}; expected 0 to below 1 for each; give a smaller half_range"
            )
    return ratios

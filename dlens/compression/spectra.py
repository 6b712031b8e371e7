"""The spectrum of a matrix of weights: its eigenvalues, how heavy their tail is, and its effective rank."""

from __future__ import annotations

import math
import random

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["SPECTRA", "alpha_peak", "effective_rank", "eigenvalues", "hill"]

Matrix = Float[Tensor, "d_out d_in"]
Spectrum = Float[Tensor, " n"]

SPECTRA = {
    "alpha": "1 + n / sum of log(l / l_min) over the n eigenvalues l from l_min on, in float64; l_min is the one of "
    "0.95 to 1.5 times the peak of the histogram of log10 l (100 bins) with the least ks (AlphaPruning, arXiv "
    "2410.10912); NaN where nothing can be fitted",
    "hill": "the same with the median eigenvalue for l_min",
    "ks": "largest distance between the fitted distribution and that of the n eigenvalues",
    "effective_rank": "exp of the entropy of p = l / sum of l, in nats and not normalised, with l the squared singular "
    "values of the whole matrix, in float64",
}
"""The estimators in words."""

_SIDE, _MOST_BLOCKS = 128, 256
_BINS, _FLOOR = 100, 1e-10
_WINDOW = (0.95, 1.5)


def eigenvalues(weight: Matrix, farms: bool = True, seed: int = 0) -> Spectrum:
    """The squared singular values of a matrix, or those of its square sub-blocks together.

    Spectra of matrices of different shapes differ in their tails by the shape alone; sub-blocks of one shape do not
    (FARMS, arXiv 2506.06280).

    Args:
        weight: any matrix.
        farms: take blocks of 128 x 128, side by side, and where there are more 256 of them, drawn; a matrix with fewer
            rows or columns is taken whole.
        seed: of the draw.

    Returns:
        Ascending, in float32, on the CPU.

    Examples:
        >>> eigenvalues(torch.diag(torch.tensor([3.0, 1.0])))
        tensor([1., 9.])
        >>> len(eigenvalues(torch.ones(300, 256))), len(eigenvalues(torch.ones(300, 256), farms=False))
        (512, 256)
    """
    matrix = weight.detach().float().cpu()
    matrices = _blocks(matrix, seed) if farms and min(matrix.shape) >= _SIDE else matrix[None]
    return torch.linalg.svdvals(matrices).square().flatten().sort().values


def _blocks(matrix: Matrix, seed: int) -> Float[Tensor, "block side side"]:
    rows, columns = (size // _SIDE for size in matrix.shape)
    cut = matrix[: rows * _SIDE, : columns * _SIDE]
    blocks = rearrange(cut, "(r side) (c other) -> (r c) side other", side=_SIDE, other=_SIDE)
    if len(blocks) <= _MOST_BLOCKS:
        return blocks
    return blocks[random.Random(seed).sample(range(len(blocks)), _MOST_BLOCKS)]


def alpha_peak(spectrum: Spectrum) -> tuple[float, float]:
    """The exponent of the power law that fits the upper part of a spectrum best, from near its peak on.

    Each eigenvalue l_min of 0.95 to 1.5 times the peak of the histogram of log10 l is tried: with the n eigenvalues
    from it on, alpha = 1 + n / sum log(l / l_min), and the Kolmogorov-Smirnov distance is the largest of
    |1 - (l / l_min)^(1 - alpha) - F(l)|, with F(l) the share of the n below l. The least distance wins.
    Formulas: Clauset, Shalizi and Newman 2009; AlphaPruning, arXiv 2410.10912, with the bounds in linear units, as in
    the code of arXiv 2605.06366.

    Args:
        spectrum: ascending, not negative.

    Returns:
        alpha and the distance; NaN where nothing can be fitted: fewer than two eigenvalues, all of them equal, a peak
        at 0, or none but the largest near the peak. The published code has 2 or 1 there.

    Examples:
        >>> power_law = (1 - torch.arange(1000) / 1000) ** (-1 / (3 - 1))
        >>> alpha, distance = alpha_peak(power_law)
        >>> round(alpha, 1), distance < 0.01
        (3.0, True)
    """
    start, stop = _window(spectrum)
    logs = spectrum.double().log()
    candidates = torch.arange(start, stop)
    alphas = _exponents(logs, candidates)
    usable = alphas.isfinite() & (alphas > 1)
    candidates, alphas = candidates[usable], alphas[usable]
    if not len(candidates):
        return math.nan, math.nan
    best, distance = _least(logs, candidates, alphas)
    return float(alphas[best]), distance


def _window(spectrum: Spectrum) -> tuple[int, int]:
    """Which eigenvalues may be l_min: the first of them, and the one after the last; none where there is no peak."""
    # In float32, as the published code has it: in which bin an eigenvalue falls moves the peak.
    logs = (spectrum + _FLOOR).log10()
    if len(logs) < 2 or not 1e-6 <= float(logs[-1] - logs[0]) < math.inf:
        return 0, 0
    bins, low, high = min(_BINS, len(logs) // 2), float(logs[0]), float(logs[-1])
    edges = torch.linspace(low, high, bins + 1)
    peak = 10 ** edges[torch.histc(logs, bins, low, high).argmax()]
    start = int(torch.searchsorted(spectrum, _WINDOW[0] * peak))
    # A tail of one eigenvalue has no exponent.
    return start, max(start, min(int(torch.searchsorted(spectrum, _WINDOW[1] * peak, right=True)), len(logs) - 1))


def _exponents(logs: Spectrum, candidates: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    above = logs.flip(0).cumsum(0).flip(0)[candidates]
    n = len(logs) - candidates
    return 1 + n / (above - n * logs[candidates])


def _least(logs: Spectrum, candidates: Int[Tensor, " m"], alphas: Float[Tensor, " m"]) -> tuple[int, float]:
    """Which candidate has the least distance, and that.

    A gap at any place bounds a candidate's distance from below. Where the gap of one is widest, those of
    its neighbours are wide too, so that of thousands of candidates a few are looked at in full.
    """
    bounds, known = torch.zeros_like(alphas), torch.zeros_like(alphas, dtype=torch.bool)
    while not known[best := int(bounds.argmin())]:
        places = torch.arange(int(candidates[best]), len(logs))
        gaps = _gaps(logs, candidates[best], alphas[best], places)
        widest = int(gaps.argmax())
        bounds = bounds.maximum(_gaps(logs, candidates, alphas, places[widest]))
        bounds[best], known[best] = gaps[widest], True
    return best, float(bounds[best])


def _gaps(
    logs: Spectrum, candidates: Int[Tensor, "*m"], alphas: Float[Tensor, "*m"], places: Int[Tensor, "*k"]
) -> Float[Tensor, " gap"]:
    """How far power laws and eigenvalues are apart: of one candidate at some places, or of several at one."""
    below = (places - candidates).double()
    fitted = 1 - ((1 - alphas) * (logs[places] - logs[candidates])).exp()
    return (fitted - below / (len(logs) - candidates)).abs().masked_fill(below < 0, 0)


def hill(spectrum: Spectrum) -> float:
    """Hill's estimate of the exponent of a spectrum's upper half.

    With n the number of eigenvalues from the median l_min on: 1 + n / sum log(l / l_min) ("alpha_mid" of AlphaPruning,
    arXiv 2410.10912).

    Args:
        spectrum: ascending, not negative.

    Returns:
        The exponent; NaN where the upper half holds zeros, or one value alone.

    Examples:
        >>> round(hill((1 - torch.arange(1000) / 1000) ** (-1 / (3 - 1))), 1)
        3.0
    """
    upper = spectrum.double().log()[len(spectrum) // 2 :]
    excess = float((upper - upper[0]).sum())
    return 1 + len(upper) / excess if 0 < excess < math.inf else math.nan


def effective_rank(weight: Matrix) -> float:
    """Over how many directions a matrix spreads: exp(-sum p log p), with p = s^2 / sum s^2 of its singular values s.

    The formula is that of the measure `EffectiveRank`, of a matrix of weights as it is: no row is scaled.

    Args:
        weight: any matrix.

    Returns:
        1 of a matrix of rank 1, and at most its smaller side; NaN of zeros.

    Examples:
        >>> round(effective_rank(torch.eye(5)[:3]), 6), round(effective_rank(torch.ones(4, 3)), 6)
        (3.0, 1.0)
    """
    # Other devices have no float64.
    matrix = (weight if weight.is_cuda else weight.cpu()).detach().double()
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    spectrum = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0)
    return float(torch.special.entr(spectrum / spectrum.sum()).sum().exp())

"""Exponents of spectra: against plain loops, power laws of known exponent, and numbers of the published code."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

import dlens
from dlens.compression.spectra import alpha_peak, effective_rank, eigenvalues, hill


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def power_law(n: int, exponent: float) -> Tensor:
    """The quantiles of a power law from 2 on, in the middle of n equal parts."""
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (2 * (1 - share) ** (-1 / (exponent - 1))).float()


def plain_alpha(tail: list[float]) -> float:
    return 1 + len(tail) / sum(math.log(value / tail[0]) for value in tail)


def plain_ks(tail: list[float], alpha: float) -> float:
    fitted = [1 - (value / tail[0]) ** (1 - alpha) for value in tail]
    return max(abs(fit - i / len(tail)) for i, fit in enumerate(fitted))


def plain_peak(values: list[float]) -> float:
    """The lower edge of the fullest bin of log10."""
    logs = [math.log10(value) for value in values]
    bins = min(100, len(values) // 2)
    width = (logs[-1] - logs[0]) / bins
    counts = [0] * bins
    for log in logs:
        counts[min(int((log - logs[0]) / width), bins - 1)] += 1
    return 10 ** (logs[0] + counts.index(max(counts)) * width)


def plain_alpha_peak(values: list[float]) -> tuple[float, float]:
    peak = plain_peak(values)
    tails = [values[i:] for i in range(len(values) - 1) if 0.95 * peak <= values[i] <= 1.5 * peak]
    fits = [(plain_ks(tail, plain_alpha(tail)), plain_alpha(tail)) for tail in tails]
    distance, alpha = min(fits, default=(math.nan, math.nan))
    return alpha, distance


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(5, 9), (40, 64), (230, 210)])
def test_alpha_is_that_of_plain_loops(shape: tuple[int, int], seed: int) -> None:
    rows = drawn(shape[0], 1, seed=seed + 100).exp()
    spectrum = eigenvalues(drawn(*shape, seed=seed) * rows, farms=False)
    expected = plain_alpha_peak(spectrum.double().tolist())
    assert alpha_peak(spectrum) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    # The peak of five eigenvalues may have none near it.
    assert shape == (5, 9) or not math.isnan(expected[0])


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0, 6.0])
def test_exponents_of_power_laws(exponent: float) -> None:
    # As many as a large matrix has.
    spectrum = power_law(32768, exponent)
    alpha, distance = alpha_peak(spectrum)
    assert alpha == pytest.approx(exponent, rel=2e-3) and distance < 1e-3
    assert hill(spectrum) == pytest.approx(exponent, rel=2e-3)


def test_alpha_has_no_unit() -> None:
    spectrum = eigenvalues(drawn(60, 80))
    assert alpha_peak(4 * spectrum) == pytest.approx(alpha_peak(spectrum), rel=1e-5)


def test_what_comes_before_a_power_law_does_not_count() -> None:
    tail = power_law(400, 3.0)
    # Some below the peak; many just before the law begins, within reach of the peak.
    for before in (torch.linspace(0.1, 1.9, 40), torch.linspace(1.5, 1.53, 120)):
        spectrum = torch.cat([before, tail])
        alpha, distance = alpha_peak(spectrum)
        assert (alpha, distance) == pytest.approx(plain_alpha_peak(spectrum.double().tolist()), rel=1e-9)
        assert alpha == pytest.approx(3.0, rel=0.02) and distance < 0.01


@pytest.mark.parametrize(
    "values", [[3.0], [2.0] * 8, [0.0] * 8, [0.0] * 6 + [1.0, 2.0], [0.0] * 90 + [1.0, 2.0, 4.0], [1.0, math.inf]]
)
def test_nothing_is_fitted_where_nothing_can_be(values: list[float]) -> None:
    alpha, distance = alpha_peak(torch.tensor(values))
    assert math.isnan(alpha) and math.isnan(distance)
    assert math.isnan(hill(torch.tensor(values)))


def test_hill_takes_the_upper_half() -> None:
    assert hill(torch.tensor([0.0, 0.5, 1.0, math.e, math.e**2])) == pytest.approx(1 + 3 / 3)
    assert hill(torch.tensor([0.5, 1.0, math.e, math.e**2])) == pytest.approx(1 + 2 / 1)


def test_eigenvalues_of_a_whole_matrix() -> None:
    weight = drawn(30, 50)
    expected = torch.linalg.eigvalsh(weight.double() @ weight.double().T).float()
    for farms in (True, False):
        torch.testing.assert_close(eigenvalues(weight, farms), expected, rtol=1e-4, atol=1e-4)
    half = eigenvalues(weight.bfloat16())
    assert half.dtype == torch.float32 and torch.equal(half, eigenvalues(weight.bfloat16().float()))


def test_eigenvalues_of_sub_blocks() -> None:
    weight = drawn(300, 130)
    parts = [eigenvalues(weight[row : row + 128, :128], farms=False) for row in (0, 128)]
    assert torch.equal(eigenvalues(weight), torch.cat(parts).sort().values)


def test_sub_blocks_are_drawn_with_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlens.compression.spectra._SIDE", 2)
    monkeypatch.setattr("dlens.compression.spectra._MOST_BLOCKS", 5)
    weight = drawn(8, 7)
    state = random.getstate()
    found = eigenvalues(weight, seed=3)
    assert random.getstate() == state
    corners = [(row, column) for row in range(0, 7, 2) for column in range(0, 6, 2)]
    blocks = [weight[r : r + 2, c : c + 2] for r, c in random.Random(3).sample(corners, 5)]
    expected = torch.cat([eigenvalues(block, farms=False) for block in blocks]).sort().values
    assert torch.equal(found, expected) and not torch.equal(found, eigenvalues(weight, seed=4))


# By `_estimate_alpha` of diffusion_prune/pruning/alpha_pruning.py in the code of arXiv 2605.06366 (super-outlier-dlm):
# "alpha_peak" with and without FARMS, "alpha_mid" with and without.
PUBLISHED = {
    "0.self_attn.q_proj": (1.7286, 1.5093, 1.6999, 1.6584),
    "0.mlp.down_proj": (3.5137, 2.6598, 1.8898, 2.1943),
    "8.self_attn.o_proj": (1.9750, 2.5798, 1.4290, 1.4149),
    "15.mlp.up_proj": (3.2754, 2.2885, 1.9829, 2.3673),
}


@pytest.mark.parametrize("path", PUBLISHED)
def test_numbers_of_the_published_code(diffusion: dlens.Model, path: str) -> None:
    weight = diffusion.blocks.get_submodule(path).weight
    spectra = [eigenvalues(weight, farms) for farms in (True, False)]
    found = (*(alpha_peak(spectrum)[0] for spectrum in spectra), *map(hill, spectra))
    assert found == pytest.approx(PUBLISHED[path], abs=1e-4)


def test_effective_rank() -> None:
    weight = drawn(7, 4)
    energy = torch.linalg.svdvals(weight.double()).square()
    expected = math.exp(-sum(p * math.log(p) for p in (energy / energy.sum()).tolist()))
    assert effective_rank(weight) == pytest.approx(expected, rel=1e-9)
    assert effective_rank(10 * weight.T) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(torch.eye(6, 9)) == pytest.approx(6)
    assert effective_rank(torch.outer(drawn(6), drawn(9))) == pytest.approx(1, abs=1e-6)
    assert math.isnan(effective_rank(torch.zeros(3, 3)))

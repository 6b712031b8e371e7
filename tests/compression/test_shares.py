"""The share of zeros of each matrix."""

import pytest
import torch

import dlens
from dlens.compression.matrices import matrices_of
from dlens.compression.recipe import Recipe
from dlens.compression.shares import shares_of
from dlens.compression.spectra import alpha_peak, eigenvalues
from dlens.compression.treat import Work
from tests.reference import shallow


@pytest.fixture(scope="module")
def model(ar: dlens.Model) -> dlens.Model:
    return shallow(ar, 3)


def work(model: dlens.Model, **settings: object) -> Work:
    rows = torch.randint(9, 900, (2, 16), generator=torch.Generator().manual_seed(0))
    return Work(model, Recipe(method="wanda", sparsity=0.5, **settings).of(model), rows, None, 8, False)


def by_layer(found: dict, layer: int) -> list[float]:
    return [share for matrix, share in found.items() if matrix.layer == layer]


def test_shares_go_by_layer(model: dlens.Model) -> None:
    matrices, _ = matrices_of(model)
    for allocation, expected in (
        ("uniform", [0.5, 0.5, 0.5]),
        ("early-sparser", [0.7, 0.5, 0.3]),
        ("late-sparser", [0.3, 0.5, 0.7]),
        ([0.1, 0.2, 0.9], [0.1, 0.2, 0.9]),
    ):
        found = shares_of(work(model, allocation=allocation), matrices)
        assert [by_layer(found, layer) for layer in range(3)] == [pytest.approx([share] * 7) for share in expected]


@torch.no_grad()
def test_outliers_make_a_matrix_less_sparse(model: dlens.Model) -> None:
    matrices, _ = matrices_of(model)
    mine = work(model, allocation="owl")
    found = shares_of(mine, matrices)
    seen: dict = {}
    handles = [
        matrix.part.register_forward_pre_hook(lambda _, args, matrix=matrix: seen.update({matrix: args[0]}))
        for matrix in matrices
    ]
    model.module(**model.family.inputs(mine.rows, None))
    for handle in handles:
        handle.remove()
    percents = []
    for matrix in matrices:
        scores = matrix.weight.abs() * seen[matrix].reshape(-1, seen[matrix].shape[-1]).norm(dim=0)
        percents.append(float((scores > 5 * scores.mean()).float().mean()) * 100)
    spread = [0.16 * (one - min(percents)) / (max(percents) - min(percents)) for one in percents]
    expected = [0.5 - one + sum(spread) / len(spread) for one in spread]
    assert list(found.values()) == pytest.approx(expected, abs=1e-6)


def test_heavy_tails_make_a_matrix_less_sparse(model: dlens.Model) -> None:
    matrices, _ = matrices_of(model)
    found = shares_of(work(model, allocation="alpha"), matrices)
    alphas = [alpha_peak(eigenvalues(matrix.weight))[0] for matrix in matrices]
    order = sorted(range(len(matrices)), key=lambda number: alphas[number])
    shares = list(found.values())
    assert [shares[number] for number in order] == sorted(shares)
    weights = [matrix.weight.numel() for matrix in matrices]
    assert sum(s * w for s, w in zip(shares, weights, strict=True)) / sum(weights) == pytest.approx(0.5)


def test_methods_that_round_ask_for_none(model: dlens.Model) -> None:
    rounding = Work(model, Recipe(bits=3), None, None, 8, False)
    assert shares_of(rounding, matrices_of(model)[0]) == {}

import math
from typing import Any

import numpy as np
import pytest
import torch

from dlens.measures import Cells, EffectiveRank, MatrixEntropy, Visit
from dlens.measures.geometry.matrix_entropy import entropy_of
from tests.measures.runs import SPANS, assert_close, observe, random_run
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

X = torch.sin(torch.arange(1, 13, dtype=torch.float64)[:, None] * torch.arange(1, 6, dtype=torch.float64))


def of_rows(rows: torch.Tensor, **settings: Any) -> float:
    cells = Cells(torch.zeros(1, len(rows), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    visit = Visit(0, range(1), {"resid_post": rows[None, None]}, cells)
    return float(MatrixEntropy(**settings).values(visit)["entropy"][0, 0, 0])


def test_known_numbers() -> None:
    assert of_rows(X) == pytest.approx(1.5976397661490094, rel=1e-12)
    assert of_rows(X, alpha=2) == pytest.approx(1.5859792297604105, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_equals_singular_values(alpha: float) -> None:
    z = X.numpy() / np.linalg.norm(X.numpy(), axis=-1, keepdims=True)
    p = np.linalg.svd(z, compute_uv=False) ** 2
    p = p / p.sum()
    expected = -(p * np.log(p)).sum() if alpha == 1 else np.log((p**alpha).sum()) / (1 - alpha)
    assert of_rows(X, alpha=alpha) == pytest.approx(expected, rel=1e-7)


def test_units_divide_by_a_logarithm() -> None:
    nats = of_rows(X)
    expected = {"nats": nats, "log n": nats / math.log(12), "log d": nats / math.log(5), "most": nats / math.log(5)}
    assert {unit: of_rows(X, unit=unit) for unit in expected} == pytest.approx(expected)
    assert of_rows(torch.eye(4, 9, dtype=torch.float64), unit="most") == pytest.approx(1)
    assert of_rows(X, unit="log d", drop=[0]) == pytest.approx(of_rows(X[:, 1:], unit="log d"))


def test_its_exponential_is_the_effective_rank() -> None:
    run = random_run(SPANS[0], width=9)
    single = np.exp(observe(MatrixEntropy(), run, layers=3)["entropy_all"])
    # One prompt a cell, so that a mean of logarithms is a logarithm.
    one = run.cell.copy()
    one[:, 1] = -1
    run.cell = one
    entropy, rank = (observe(measure, run) for measure in (MatrixEntropy(), EffectiveRank()))
    assert_close(np.exp(entropy["entropy"]), rank["effective_rank"].values)
    assert_close(np.exp(entropy["entropy_all"]), rank["effective_rank_all"].values)
    assert single.shape == entropy["entropy_all"].shape
    assert "alpha 1, in nats" in entropy.attrs["estimator"]


def test_an_entropy_of_no_eigenvalues_counts_none() -> None:
    assert float(entropy_of(torch.tensor([0.0, 2.0, 2.0]), 0.5).exp()) == pytest.approx(2)


@pytest.mark.parametrize(("name", "value"), [("alpha", 0), ("alpha", "x"), ("unit", "bits"), ("drop", "x")])
def test_settings_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        MatrixEntropy(**{name: value})
    assert_three_parts(str(caught.value), f"{name}={value!r}")

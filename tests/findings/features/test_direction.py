from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV

import dlens
from tests.reference import shallow
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def vectors() -> Any:
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"] * 20)
    return rng.normal(size=(2, 60, 5)) + 2 * (labels == "b")[:, None] * np.eye(5)[0], labels


def test_the_difference_of_means() -> None:
    x, labels = vectors()
    found = dlens.direction(x, labels, "b")
    expected = x[:, labels == "b"].mean(1) - x[:, labels != "b"].mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    two = dlens.direction(x[0], labels == "b")
    np.testing.assert_allclose(two[0], expected[0], atol=1e-5)


def test_the_weights_of_a_probe_move_as_far_along_them() -> None:
    x, labels = vectors()
    found = dlens.direction(x, labels, "b", method="probe").numpy().astype(float)
    for layer in range(2):
        z = x[layer].astype(np.float32).astype(float)
        scale = z.std(0)
        reader = RidgeClassifierCV(alphas=[10.0**p for p in range(-1, 6)]).fit((z - z.mean(0)) / scale, labels == "b")
        weights = reader.coef_.ravel() / scale
        cosine = weights @ found[layer] / np.linalg.norm(weights) / np.linalg.norm(found[layer])
        assert cosine == pytest.approx(1)
        apart = z[labels == "b"].mean(0) - z[labels != "b"].mean(0)
        assert found[layer] @ weights == pytest.approx(apart @ weights, rel=1e-4)


def test_a_direction_moves_one_mean_to_the_other(diffusion: dlens.Model) -> None:
    texts = ["She was happy", "He was glad", "She was sad", "He cried"]
    trace = dlens.trace(shallow(diffusion, 3))
    record = trace.capture("resid_post", layers=[0, 2]).forward(texts)
    vector = dlens.direction(record, ["good", "good", "bad", "bad"], "good")
    means = torch.stack([record["resid_post"][:, b, ~record.is_pad[b]].mean(1) for b in range(4)])
    torch.testing.assert_close(vector, means[:2].mean(0) - means[2:].mean(0), atol=1e-5, rtol=1e-5)
    steered = trace.steer(vector[1], layers=2).capture("resid_post", layers=[2]).forward(texts[2:])
    moved = torch.stack([steered["resid_post"][0, b, ~steered.is_pad[b]].mean(0) for b in range(2)]).mean(0)
    torch.testing.assert_close(moved, means[:2, 1].mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "came"),
    [({"toward": "z"}, "toward='z'"), ({}, "toward=None"), ({"toward": "b", "method": "pca"}, "method='pca'")],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], came: str) -> None:
    x, labels = vectors()
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.direction(x, labels, **given)
    assert_three_parts(str(caught.value), came)

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV, RidgeCV

from dlens.findings.layers.linear import fitted, score, weights_of

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(60, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, -2]
NUMBERS = VECTORS @ [1.0, 0.2, 3.0, 0.0]


def test_weights_are_in_the_units_of_the_vectors() -> None:
    z = (VECTORS - VECTORS.mean(0)) / VECTORS.std(0)
    plain = RidgeCV(alphas=[10.0**p for p in range(-1, 6)]).fit(z, NUMBERS)
    reader = fitted(VECTORS, NUMBERS, classes=False)
    np.testing.assert_allclose(weights_of(reader)[0], plain.coef_ / VECTORS.std(0))
    np.testing.assert_allclose(reader.predict(VECTORS), plain.predict(z))
    moved = reader.predict(VECTORS + [0, 1, 0, 0]) - reader.predict(VECTORS)
    np.testing.assert_allclose(moved, weights_of(reader)[0, 1])


def test_classes_are_read_by_a_ridge_classifier() -> None:
    labels = np.array(["a", "b", "c"])[np.digitize(NUMBERS, [-1, 2])]
    z = (VECTORS - VECTORS.mean(0)) / VECTORS.std(0)
    plain = RidgeClassifierCV(alphas=[10.0**p for p in range(-1, 6)]).fit(z, labels)
    reader = fitted(VECTORS, labels, classes=True)
    assert reader.predict(VECTORS).tolist() == plain.predict(z).tolist()
    assert weights_of(reader).shape == (3, 4) and weights_of(fitted(VECTORS, labels == "a", True)).shape == (1, 4)


def test_scores() -> None:
    truth, guessed = np.array(["a", "a", "b"]), np.array(["a", "c", "b"])
    assert score(truth, guessed, classes=True) == pytest.approx(0.75)
    assert score(NUMBERS, NUMBERS, classes=False) == 1 and score(NUMBERS, NUMBERS * 0 + NUMBERS.mean(), False) == 0

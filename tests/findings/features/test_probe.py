from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dlens
from tests.reference import shallow
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

PENALTIES = tuple(10.0**power for power in range(-1, 6))


def planted(n: int = 120, seed: int = 0) -> Any:
    """Vectors of two layers, the second of which holds the labels; three samples a group."""
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(2, n, 6)), rng.integers(0, 3, n)
    vectors[1, :, :3] += 1.5 * np.eye(3)[labels]
    return vectors, labels, np.arange(n) // 3


def test_equals_scikit_learn_on_the_same_arrays() -> None:
    vectors, labels, group = planted()
    numbers = vectors[1, :, 0] + 0.5 * vectors[0, :, 0]
    data = dlens.probe(vectors, labels, groups=group, folds=4)
    other = dlens.probe(vectors, numbers, groups=group, folds=4, numbers=True)
    float32 = vectors.astype(np.float32)
    quarters = numbers.argsort().argsort() * 4 // len(numbers)
    splits = [list(StratifiedGroupKFold(4).split(labels, kinds, group)) for kinds in (labels, quarters)]
    for layer in range(2):
        classifier, regression = (
            make_pipeline(StandardScaler(), kind(alphas=PENALTIES)) for kind in (RidgeClassifierCV, RidgeCV)
        )
        guessed = cross_val_predict(classifier, float32[layer], labels, cv=splits[0])
        assert data["score"][layer] == pytest.approx(balanced_accuracy_score(labels, guessed))
        read = cross_val_predict(regression, float32[layer], numbers, cv=splits[1])
        assert other["score"][layer] == pytest.approx(r2_score(numbers, read), abs=1e-5)
    assert data["score"][1] > 0.6 > data["score"][0] and data.attrs["chance"] == pytest.approx(1 / 3)
    assert other["score"][1] > 0.5 and other.attrs["chance"] == 0


@pytest.mark.parametrize("numbers", [False, True])
def test_labels_that_alternate_are_in_every_fold(numbers: bool) -> None:
    """Folds that take prompts in turn would learn from one class and be tried on the other."""
    labels = np.arange(40) % 2
    vectors = np.random.default_rng(0).normal(size=(40, 3)) + 3 * labels[:, None]
    data = dlens.probe(vectors, labels, folds=2, numbers=numbers)
    assert data["score"] > 0.7 > data["control"] and not data.isnull().to_array().any()


def test_a_class_may_be_rarer_than_folds_are() -> None:
    """A fold that lacks a class, and prompts so unlike in size that a fold is empty."""
    vectors = np.array([[-3.0], [-2.5], [-2.0], [2.0], [2.5], [3.0]])
    assert dlens.probe(vectors, list("aaabbb"), folds=5)["score"] == 1
    assert dlens.probe(vectors, list("aaaaab"), folds=5)["score"].isnull()
    group = np.repeat(np.arange(6), [8, 1, 1, 1, 1, 1])
    labels = np.array([0] * 8 + [1, 0, 1, 0, 1])
    rows = 4.0 * labels[:, None] + np.arange(13)[:, None] / 13
    assert dlens.probe(rows, labels, groups=group, folds=5)["score"] > 0.7


def test_shuffled_labels_score_at_chance_within_their_interval() -> None:
    """As often as the interval says: the classes are told apart, their shuffles are not."""
    inside = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 80)
        vectors = rng.normal(size=(80, 4)) + labels[:, None]
        data = dlens.probe(vectors, labels, folds=2, seed=seed)
        assert data["low"] > 0.5
        inside.append(bool(data["control_low"] <= 0.5 <= data["control_high"]))
    assert sum(inside) >= 21


def test_folds_share_no_prompt_and_prompts_keep_their_label_when_shuffled() -> None:
    """Vectors that only name their group: nothing is learned of others, whatever their labels."""
    group = np.repeat(np.arange(12), 5)
    vectors = np.eye(12)[group] + np.random.default_rng(0).normal(size=(60, 12)) / 100
    labels = np.array(["a", "b"] * 6)[group]
    assert dlens.probe(vectors, labels, groups=group, folds=3)["score"] < 0.8
    assert dlens.probe(vectors, labels, folds=3)["score"] > 0.9


def test_the_interval_is_the_jackknife_over_prompts() -> None:
    vectors, labels, group = planted(60)
    data = dlens.probe(vectors[1], labels, groups=group, folds=4)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    guessed = cross_val_predict(model, vectors[1].astype(np.float32), labels, groups=group, cv=StratifiedGroupKFold(4))
    left = [balanced_accuracy_score(labels[group != out], guessed[group != out]) for out in range(20)]
    from scipy.stats import t

    reach = t.ppf(0.975, 19) * np.sqrt(19 * np.var(left))
    score = data["score"].item()
    np.testing.assert_allclose([data["low"].item(), data["high"].item()], [score - reach, score + reach])


def test_a_run_is_read_step_by_step(diffusion: dlens.Model) -> None:
    prompts = ["Once upon a time", "The dog", "One day", "Tom has"] * 2
    record = dlens.trace(shallow(diffusion, 3)).capture("resid_post", layers=[0, 2]).generate(prompts, 3)
    labels = np.array([0, 0, 1, 1] * 2)
    data = dlens.probe(record, labels, tokens="decoded", folds=2)
    assert data["score"].dims == ("step", "layer") and data["layer"].values.tolist() == [0, 2]
    assert data["n"].values.tolist() == [0, 8, 8] and data["score"][0].isnull().all()
    values = record["resid_post"]
    masked = record.canvas == record.canvas[0, 0, -1]
    rows = torch.stack([values[2, 1, b, -3:][~masked[2, b, -3:]].mean(0) for b in range(8)])
    assert data["score"][2, 1] == dlens.probe(rows, labels, folds=2)["score"]


def test_what_does_not_fit_is_refused() -> None:
    vectors, labels, group = planted(12)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"folds": 1}, "folds=1"),
        ({"folds": 5, "groups": group}, "folds=5"),
        ({"numbers": "no"}, "numbers='no'"),
        ({"seed": -1}, "seed=-1"),
        ({"labels": labels[:3]}, "labels of shape"),
        ({"labels": ["a"] * 12}, "labels=['a']"),
        ({"labels": [2.5] * 12, "numbers": True}, "labels=[2.5]"),
    ]
    for given, came in wrong:
        with unchecked(), pytest.raises(ValueError) as caught:
            dlens.probe(vectors, **{"labels": labels} | given)
        assert_three_parts(str(caught.value), came)

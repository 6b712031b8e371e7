from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.layers.probe_layers import _cross_validated, _frequent
from dlens.tracing.probes.calibration import calibration_texts
from tests.reference import shallow

TEXTS = calibration_texts()[:6]
SMALL: dict[str, Any] = {"rates": (0.0, 0.5, 0.9), "positions": 24, "folds": 3, "n_tokens": 4}


@pytest.fixture(scope="module")
def small(diffusion: dlens.Model) -> dlens.Model:
    """The first six blocks of the diffusion model."""
    return shallow(diffusion, 6)


@pytest.fixture(scope="module")
def probed(small: dlens.Model) -> Any:
    return dlens.probe_layers(dlens.trace(small), TEXTS, **SMALL)


def test_dims_and_counts(probed: Any, small: dlens.Model) -> None:
    assert probed["score"].dims == probed["control"].dims == ("target", "layer", "fold")
    assert probed["target"].values.tolist() == ["noise", "position", "token", "masked_token"]
    assert dict(probed.sizes) == {"target": 4, "layer": small.n_layers, "fold": 3}
    assert probed["n"].sel(target=["noise", "position"]).values.tolist() == [6 * 3 * 24] * 2
    assert probed["chance"].sel(target="noise") == 0 and probed["chance"].sel(target="token") == 0.25
    assert {"estimator", "pooling", "positions", "control", "channels_left_out", "n"} <= probed.attrs.keys()


def test_reads_more_than_from_shuffled_labels(probed: Any) -> None:
    score, control = (probed[key].mean("fold").max("layer") for key in ("score", "control"))
    assert float(score.sel(target="noise")) > 0.2 > abs(float(control.sel(target="noise")))
    assert float(score.sel(target="token")) > 0.8 > float(control.sel(target="token"))
    assert float(probed["score"].sel(target="token").isel(layer=0).mean()) > 0.9


def test_the_same_seed_gives_the_same_numbers(probed: Any, small: dlens.Model) -> None:
    again = dlens.probe_layers(small, TEXTS, targets=["token"], batch_size=5, **SMALL)
    np.testing.assert_allclose(again["score"][0], probed["score"].sel(target="token"), atol=1e-6)


def test_a_planted_direction_is_found_and_its_shuffle_is_not() -> None:
    rng = np.random.default_rng(0)
    vectors, group = rng.normal(size=(400, 10)), np.repeat(np.arange(20), 20)
    labels = vectors @ rng.normal(size=10)
    assert (_cross_validated(vectors, labels, group, 5, False) > 0.99).all()
    assert abs(_cross_validated(vectors, rng.permutation(labels), group, 5, False).mean()) < 0.1
    signs = np.sign(labels)
    assert (_cross_validated(vectors, signs, group, 5, True) > 0.9).all()
    assert abs(_cross_validated(vectors, rng.permutation(signs), group, 5, True).mean() - 0.5) < 0.1


def test_what_only_names_the_prompt_teaches_nothing_of_other_prompts() -> None:
    group = np.repeat(np.arange(10), 20)
    vectors = np.eye(10)[group]
    labels = np.random.default_rng(0).normal(size=10)[group] + np.random.default_rng(1).normal(size=200) / 100
    assert (_cross_validated(vectors, labels, group, 5, False) < 0.1).all()


def test_the_most_frequent_tokens_are_kept() -> None:
    labels = np.array([3, np.nan, 7, 7, 3, 7, 5])
    assert _frequent(labels, 2).tolist() == [0, 2, 3, 4, 5]


def test_vectors_that_are_not_finite_are_nan_at_their_layers(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).hook("blocks.5.hook_resid_post", lambda value, hook: value * torch.nan)
    data = dlens.probe_layers(trace, TEXTS, targets=["position"], folds=2, positions=8)
    assert (data["score"].isnull() == (data["layer"] >= 5)).all()


def test_prompts_of_one_token_give_nan(ar: dlens.Model) -> None:
    data = dlens.probe_layers(ar, [[9], [10]], folds=2)
    assert data["score"].isnull().all() and data["n"].sel(target="position") == 2


def test_an_autoregressive_model_has_no_noise(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="target 'noise' of trio/ar; expected one of position, token; leave it out"):
        dlens.probe_layers(ar, TEXTS, targets=["noise"])


@pytest.mark.parametrize("folds", [1, 7])
def test_folds_need_a_prompt_each(ar: dlens.Model, folds: int) -> None:
    with pytest.raises(ValueError, match=f"folds={folds} with 6 prompts; expected 2 folds at least and a prompt"):
        dlens.probe_layers(ar, TEXTS, folds=folds)

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.features.autoencoder import as_rows
from tests.features.published import (
    D_MODEL,
    FEATURES,
    K,
    autoencoder,
    encoded,
    identity,
    random_rows,
    random_weights,
)
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
def test_features_are_those_of_the_formula(activation: Any, centred: bool) -> None:
    w = random_weights()
    threshold = w["threshold"] if activation == "jumprelu" else None
    k = K if activation == "topk" else None
    sae = autoencoder(activation=activation, k=k, threshold=threshold, centred=centred)
    x = random_rows()
    expected = encoded(x.double().numpy(), w, activation, centred)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(sae.encode(x), expected, atol=1e-5)
    back = expected @ w["W_dec"].double().numpy() + w["b_dec"].double().numpy()
    np.testing.assert_allclose(sae.reconstruct(x), back, atol=1e-5)
    np.testing.assert_allclose(sae.decode(sae.encode(x[None]))[0], back, atol=1e-5)


def test_of_k_features_none_is_negative() -> None:
    sae = autoencoder(k=FEATURES)
    features = sae.encode(random_rows())
    assert bool((features >= 0).all()) and 0 < int((features > 0).sum(-1).min()) < FEATURES


def test_a_layer_norm_is_taken_off_and_put_on_again() -> None:
    x = random_rows() * 3 + 1
    z = x.double().numpy()
    mean, std = z.mean(-1, keepdims=True), z.std(-1, keepdims=True, ddof=1)
    features = encoded((z - mean) / (std + 1e-5), random_weights(), "topk")
    w = {name: value.double().numpy() for name, value in random_weights().items()}
    sae = autoencoder(normalize="layer_norm")
    np.testing.assert_allclose(sae.encode(x), features, atol=1e-5)
    np.testing.assert_allclose(sae.reconstruct(x), (features @ w["W_dec"] + w["b_dec"]) * std + mean, atol=1e-4)


def test_a_constant_norm_is_taken_off_and_put_on_again() -> None:
    x = random_rows() * 3 + 1
    z = x.double().numpy()
    factor = D_MODEL**0.5 / np.linalg.norm(z, axis=-1, keepdims=True)
    features = encoded(z * factor, random_weights(), "topk")
    w = {name: value.double().numpy() for name, value in random_weights().items()}
    sae = autoencoder(normalize="constant_norm_rescale")
    np.testing.assert_allclose(sae.encode(x), features, atol=1e-5)
    np.testing.assert_allclose(sae.reconstruct(x), (features @ w["W_dec"] + w["b_dec"]) / factor, atol=1e-4)
    with pytest.raises(ValueError) as caught:
        sae.decode(sae.encode(x))
    assert_three_parts(str(caught.value), "of=None")


def test_a_perfect_one_gives_back_what_it_got() -> None:
    x = random_rows(50)
    sae = identity(D_MODEL)
    assert torch.equal(sae.reconstruct(x), x) and sae.explained_variance(x) == 1


def test_explained_variance_is_that_of_two_passes() -> None:
    x = random_rows(50)
    sae = autoencoder()
    z, back = x.double().numpy(), sae.reconstruct(x).double().numpy()
    expected = 1 - ((z - back) ** 2).sum() / ((z - z.mean(0)) ** 2).sum()
    assert sae.explained_variance(x) == pytest.approx(expected, abs=1e-6)


def test_a_direction_is_what_a_feature_adds() -> None:
    sae = autoencoder()
    features = torch.zeros(FEATURES)
    features[4] = 1
    torch.testing.assert_close(sae.decode(features) - sae.decode(torch.zeros(FEATURES)), sae.direction(4))
    for wrong in (-1, FEATURES, "x", 1.5):
        with unchecked(), pytest.raises(IndexError) as caught:
            sae.direction(wrong)  # pyright: ignore[reportArgumentType]
        assert_three_parts(str(caught.value), f"feature {wrong!r}")


def test_half_precision_is_encoded_in_the_type_of_the_weights() -> None:
    x = random_rows().bfloat16()
    assert torch.equal(autoencoder().encode(x), autoencoder().encode(x.float()))


def test_another_device_is_remembered_and_not_pickled() -> None:
    sae = autoencoder()
    meta = sae.on(torch.device("meta"))
    assert meta.encoder.device.type == "meta" and sae.on(torch.device("meta")) is meta
    assert sae.on(torch.device("cpu")) is sae
    again = pickle.loads(pickle.dumps(sae))
    assert again.memo == {} and torch.equal(again.encoder, sae.encoder) and list(sae.memo) == ["meta"]


WRONG: dict[str, Any] = {
    "activation": "gelu",
    "normalize": "batch_norm",
    "k": 0,
    "decoder": torch.zeros(D_MODEL, FEATURES),
    "encoder": torch.zeros(FEATURES),
    "encoder_bias": torch.zeros(D_MODEL),
    "decoder_bias": None,
    "threshold": torch.zeros(FEATURES),
    "site": "resid_post",
    "centred": "no",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_refused(name: str) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        replace(autoencoder(), **{name: WRONG[name]})
    assert_three_parts(str(caught.value), name)


def test_a_threshold_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold=None; expected one threshold a feature"):
        autoencoder(activation="jumprelu", k=None)


def test_vectors_of_another_width_are_refused() -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        autoencoder(site="blocks.8.hook_resid_post").encode(torch.zeros(2, 5))
    assert_three_parts(str(caught.value), "vectors of width 5")
    assert "pass values of blocks.8.hook_resid_post" in str(caught.value)


@pytest.mark.parametrize("rows", [None, [1.0], torch.zeros(3), torch.zeros(0, 4), torch.zeros(2, 3).long()], ids=str)
def test_rows_are_numbers_a_vector_each(rows: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        as_rows(rows)
    assert_three_parts(str(caught.value), "rows=")
    with pytest.raises(ValueError, match="rows of width 4; expected 3"):
        as_rows(torch.zeros(2, 4), 3)


def test_its_words_are_short() -> None:
    assert repr(autoencoder(site="blocks.8.hook_resid_post")) == (
        f"SparseAutoencoder({FEATURES} features, topk {K} of blocks.8.hook_resid_post)"
    )
    assert repr(identity(2)) == "SparseAutoencoder(4 features, relu)"
    assert (identity(2).point, identity(2).layer) == (None, None)


def test_a_sweep_knows_it_by_its_weights() -> None:
    from dlens.digest import value_digest

    one, same, other = autoencoder(), autoencoder(), autoencoder(seed=1)
    one.on(torch.device("meta"))
    assert value_digest(one) == value_digest(same) != value_digest(other)


def test_the_shipped_one_is_small_and_good(diffusion: dlens.Model) -> None:
    sae = dlens.load_sae("trio/diffusion")
    rows = dlens.activation_rows(diffusion, tokens="all", noise=(0.05, 0.95))
    assert sae.model == "trio/diffusion" and sae.d_model == diffusion.d_model
    assert sae.explained_variance(rows) > 0.7

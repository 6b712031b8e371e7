from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from dlens.features.sparsify import read_sparsify
from tests.features.published import D_MODEL, FEATURES, K, encoded, random_rows, random_weights, write
from tests.refusing import assert_three_parts


def save(folder: Path, **config: Any) -> None:
    """A folder as `SparseCoder.save_to_disk` writes it: the encoder is a linear layer."""
    w = random_weights()
    own = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": FEATURES, "k": K}
    own |= {"multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_MODEL}
    write(folder, "cfg.json", own | config)
    named = {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"], "W_dec": w["W_dec"]}
    save_file(named | {"b_dec": w["b_dec"]}, folder / "sae.safetensors")


def test_a_folder_encodes_to_its_numbers(tmp_path: Path) -> None:
    save(tmp_path)
    sae, x = read_sparsify(tmp_path), random_rows()
    expected = encoded(x.double().numpy(), random_weights(), "topk")
    np.testing.assert_allclose(sae.encode(x), expected, atol=1e-5)
    w = {name: value.double().numpy() for name, value in random_weights().items()}
    np.testing.assert_allclose(sae.reconstruct(x), expected @ w["W_dec"] + w["b_dec"], atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "site"),
    [
        ("layers.10", "blocks.10.hook_resid_post"),
        ("layers.10.mlp", "blocks.10.hook_mlp_out"),
        ("model.layers.3.self_attn", "blocks.3.hook_attn_out"),
        ("h.0", "blocks.0.hook_resid_post"),
        ("layer_21", "blocks.21.hook_resid_post"),
        ("embed_tokens", None),
        ("somewhere", None),
    ],
)
def test_the_folder_names_the_site(tmp_path: Path, folder: str, site: str | None) -> None:
    save(tmp_path / folder)
    assert read_sparsify(tmp_path / folder).site == site


@pytest.mark.parametrize(
    ("name", "value"),
    [("transcode", True), ("skip_connection", True), ("activation", "groupmax"), ("signed", True), ("k", None)],
)
def test_what_is_no_topk_autoencoder_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    save(tmp_path, **{name: value})
    with pytest.raises(ValueError) as caught:
        read_sparsify(tmp_path)
    assert_three_parts(str(caught.value), f"{name} in {tmp_path}={value!r}")

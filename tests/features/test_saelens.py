import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dlens
from dlens.features.saelens import read_saelens, write_saelens
from tests.features.published import D_MODEL, FEATURES, K, autoencoder, encoded, random_rows, save_saelens, write
from tests.refusing import assert_three_parts


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_a_folder_encodes_to_its_numbers_and_round_trips(tmp_path: Path, architecture: str) -> None:
    weights = save_saelens(tmp_path / "a", architecture)
    sae, x = read_saelens(tmp_path / "a"), random_rows()
    np.testing.assert_allclose(sae.encode(x), encoded(x.double().numpy(), weights, architecture), atol=1e-5)
    assert (sae.site, sae.model) == ("blocks.3.hook_resid_pre", "gpt2")
    write_saelens(sae, tmp_path / "b")
    again = load_file(tmp_path / "b" / "sae_weights.safetensors")
    assert again.keys() == weights.keys() and all(torch.equal(again[name], weights[name]) for name in weights)
    configs = [json.loads((tmp_path / name / "cfg.json").read_text()) for name in ("a", "b")]
    same = ("architecture", "d_in", "d_sae", "dtype", "apply_b_dec_to_input", "normalize_activations", "k")
    assert [configs[0].get(name) for name in same] == [configs[1].get(name) for name in same]
    assert [config["metadata"]["hook_name"] for config in configs] == ["blocks.3.hook_resid_pre"] * 2
    assert torch.equal(read_saelens(tmp_path / "b").encode(x), sae.encode(x))


def test_features_that_count_by_the_length_of_what_they_add(tmp_path: Path) -> None:
    weights = save_saelens(tmp_path, rescale_acts_by_decoder_norm=True)
    x = random_rows()
    norm = weights["W_dec"].norm(dim=-1)
    h = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]) * norm
    kept = torch.zeros_like(h).scatter(-1, h.topk(K).indices, h.topk(K).values.relu())
    sae = read_saelens(tmp_path)
    torch.testing.assert_close(sae.encode(x), kept)
    torch.testing.assert_close(sae.reconstruct(x), kept / norm @ weights["W_dec"] + weights["b_dec"])


@pytest.mark.parametrize(
    "older", [{"activation_fn": "topk"}, {"activation_fn_str": "topk", "architecture": "standard"}]
)
def test_versions_before_6_name_things_otherwise(tmp_path: Path, older: dict[str, Any]) -> None:
    weights = save_saelens(tmp_path, "standard")
    config = {"d_in": D_MODEL, "d_sae": FEATURES, "dtype": "float32", "hook_point": "blocks.3.hook_resid_pre"}
    config |= {"model_name": "gpt2", "normalize_activations": None, "activation_fn_kwargs": {"k": K}}
    write(tmp_path, "cfg.json", config | older)
    sae, x = read_saelens(tmp_path), random_rows()
    np.testing.assert_allclose(sae.encode(x), encoded(x.double().numpy(), weights, "topk"), atol=1e-5)
    assert (sae.site, sae.model, sae.k) == ("blocks.3.hook_resid_pre", "gpt2", K)


WRONG: dict[str, dict[str, Any]] = {
    "architecture": {"architecture": "gated"},
    "normalize_activations": {"normalize_activations": "expected_average_only_in"},
    "reshape_activations": {"reshape_activations": "hook_z"},
    "k in": {"k": None},
}


@pytest.mark.parametrize("came", WRONG)
def test_what_dlens_does_not_compute_is_refused(tmp_path: Path, came: str) -> None:
    save_saelens(tmp_path, **WRONG[came])
    with pytest.raises(ValueError) as caught:
        read_saelens(tmp_path)
    assert_three_parts(str(caught.value), came)


@pytest.mark.parametrize("name", ["blocks.0.hook_nothing", "hook_embed", None])
def test_a_site_that_is_none_of_a_block_is_left_open(tmp_path: Path, name: str | None) -> None:
    save_saelens(tmp_path, metadata={"hook_name": name})
    assert read_saelens(tmp_path).site is None


def test_a_save_that_is_interrupted_is_no_autoencoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder().save(tmp_path)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlens.features.saelens.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        autoencoder(seed=1).save(tmp_path)
    with pytest.raises(ValueError, match="expected a folder with cfg.json"):
        dlens.load_sae(tmp_path)


def test_what_it_knows_of_itself_is_kept(tmp_path: Path) -> None:
    autoencoder(model="mine", facts={"rows": 3, "noise": [0.1, 0.5]}, centred=False).save(tmp_path)
    sae = dlens.load_sae(tmp_path)
    assert (sae.model, dict(sae.facts), sae.centred) == ("mine", {"rows": 3, "noise": [0.1, 0.5]}, False)
    with safe_open(tmp_path / "sae_weights.safetensors", "pt") as held:
        assert sorted(held.keys()) == ["W_dec", "W_enc", "b_dec", "b_enc"]


def test_half_precision_is_read_in_float32(tmp_path: Path) -> None:
    weights = save_saelens(tmp_path, dtype="float16")
    half = {name: value.half() for name, value in weights.items()}
    save_file(half, tmp_path / "sae_weights.safetensors")
    assert torch.equal(read_saelens(tmp_path).encoder, half["W_enc"].float())

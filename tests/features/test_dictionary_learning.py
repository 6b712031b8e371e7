from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlens.features.dictionary_learning import read_dictionary_learning
from tests.features.published import K, encoded, random_rows, random_weights, write
from tests.refusing import assert_three_parts


def save(folder: Path, kind: str, **trainer: Any) -> None:
    """A folder as the trainers of dictionary_learning leave it: linear layers, and the k and threshold of buffers."""
    w = random_weights()
    state = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T}
    if kind == "AutoEncoder":
        state["bias"] = w["b_dec"]
    else:
        state |= {"b_dec": w["b_dec"], "k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.75)}
    own = {"dict_class": kind, "layer": 26, "lm_name": "GSAI-ML/LLaDA-8B-Base", "submodule_name": None, "k": K}
    write(folder, "config.json", {"trainer": own | trainer, "buffer": {}})
    torch.save(state, folder / "ae.pt")


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE", "AutoEncoder"])
def test_a_folder_encodes_to_its_numbers(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "resid_post_layer_26" / "trainer_2"
    save(folder, kind)
    sae, x, w = read_dictionary_learning(folder), random_rows(), random_weights()
    w["threshold"] = torch.full_like(w["threshold"], 0.75)
    architecture = {"AutoEncoderTopK": "topk", "BatchTopKSAE": "jumprelu", "AutoEncoder": "relu"}[kind]
    expected = encoded(x.double().numpy(), w, architecture)
    np.testing.assert_allclose(sae.encode(x), expected, atol=1e-5)
    back = expected @ w["W_dec"].double().numpy() + w["b_dec"].double().numpy()
    np.testing.assert_allclose(sae.reconstruct(x), back, atol=1e-5)
    assert (sae.site, sae.model) == ("blocks.26.hook_resid_post", "GSAI-ML/LLaDA-8B-Base")


def test_the_module_names_the_site_where_it_can(tmp_path: Path) -> None:
    save(tmp_path, "AutoEncoder", submodule_name="mlp_out_layer_3", layer=3)
    assert read_dictionary_learning(tmp_path).site == "blocks.3.hook_mlp_out"
    save(tmp_path, "AutoEncoder", submodule_name="head")
    assert read_dictionary_learning(tmp_path).site is None


def test_another_kind_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "GatedAutoEncoder")
    with pytest.raises(ValueError) as caught:
        read_dictionary_learning(tmp_path)
    assert_three_parts(str(caught.value), f"dict_class in {tmp_path}='GatedAutoEncoder'")


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    save(tmp_path, "AutoEncoder")
    torch.save({"encoder.weight": Path("here")}, tmp_path / "ae.pt")
    with pytest.raises(ValueError) as caught:
        read_dictionary_learning(tmp_path)
    assert_three_parts(str(caught.value), "ae.pt cannot be read (UnpicklingError)")

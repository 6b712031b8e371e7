"""The shipped autoencoder's recipe, on a few short texts."""

from pathlib import Path

import pytest

import dlens
from dlens.features.load_sae import SHIPPED
from recipes.features.train import train


def test_what_is_trained_is_written_with_its_card(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipes.features.train.LENGTH", 16)
    train(documents, documents, n_features=256, k=8, epochs=2, batch_size=64, each=2, each_held=1, out=tmp_path)
    sae = dlens.load_sae(tmp_path)
    assert (sae.n_features, sae.k, sae.site, sae.model) == (256, 8, "blocks.8.hook_resid_post", "trio/diffusion")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "TopK, 256 features of which 8 are active" in card and "of 12 texts" in card and "(6 of them)" in card


def test_the_card_is_of_what_ships() -> None:
    for model, folder in SHIPPED.items():
        sae, card = dlens.load_sae(model), (folder / "README.md").read_text(encoding="utf-8")
        assert f"TopK, {sae.n_features} features of which {sae.k} are active, of `{sae.site}`" in card
        assert f"{sae.facts['rows']:,} rows" in card and f"{sae.facts['dead']} of {sae.n_features}" in card

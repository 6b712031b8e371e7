from pathlib import Path

import pytest

import dlens
from dlens.features.load_sae import SHIPPED
from tests.features.published import autoencoder, save_saelens
from tests.features.test_dictionary_learning import save as save_dictionary
from tests.features.test_sparsify import save as save_sparsify
from tests.refusing import assert_three_parts

MOST_BYTES = 2 * 2**20


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    save_saelens(tmp_path / "a")
    save_sparsify(tmp_path / "b")
    save_dictionary(tmp_path / "c", "AutoEncoderTopK")
    assert {dlens.load_sae(tmp_path / name).k for name in "abc"} == {3}
    assert dlens.load_sae(str(tmp_path / "a")).model == "gpt2"


@pytest.mark.parametrize("name", ["nowhere", "empty", "other"])
def test_what_is_no_such_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cfg.json").write_text("{}")
    with pytest.raises(ValueError) as caught:
        dlens.load_sae(tmp_path / name)
    assert_three_parts(str(caught.value), str(tmp_path / name))


def test_a_model_without_a_shipped_one_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        dlens.load_sae("trio/diffusio")
    assert_three_parts(str(caught.value), "no autoencoder of 'trio/diffusio'")
    assert "did you mean 'trio/diffusion'?" in str(caught.value)


def test_shipped_ones_are_small() -> None:
    for folder in SHIPPED.values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES


def test_a_saved_one_is_loaded(tmp_path: Path) -> None:
    autoencoder().save(tmp_path)
    assert dlens.load_sae(tmp_path).encoder.equal(autoencoder().encoder)

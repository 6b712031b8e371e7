"""Models in folders: all of one, or nothing."""

import copy
import json
import os
import pickle
from pathlib import Path

import pytest

import dlens
from tests.reference import shallow
from tests.standins import save_llada
from tests.whole.architectures import CONFIGS, build


@pytest.fixture(scope="module")
def small(diffusion: dlens.Model) -> dlens.Model:
    return dlens.compress(shallow(diffusion, 2), "rtn", bits=3)


def test_a_saved_model_is_the_same(small: dlens.Model, tmp_path: Path) -> None:
    again = dlens.load(small.save(tmp_path / "small"))
    assert again.fingerprint() == small.fingerprint() and again.compression == small.compression
    assert (again.family.name, again.family.mask_token_id) == (small.family.name, small.family.mask_token_id)
    text = "Once upon a time"
    assert dlens.trace(again).generate(text, 4).text == dlens.trace(small).generate(text, 4).text
    assert pickle.loads(pickle.dumps(again)).compression == small.compression


def test_a_family_that_the_user_gave_is_kept(tmp_path: Path) -> None:
    module = build(copy.deepcopy(CONFIGS["llama"][0]))
    module.config.is_causal = False
    for block in module.model.layers:
        block.self_attn.is_causal = False
    model = dlens.load(module, family=dlens.Family("masked-shifted", "diffusion", 1, mask_token_id=7))
    again = dlens.load(model.save(tmp_path / "x"))
    assert (again.family.name, again.family.shift, again.family.mask_token_id) == ("masked-shifted", 1, 7)
    logits = [dlens.trace(each).capture("logits").forward([[5, 6, 7]])["logits"] for each in (model, again)]
    assert logits[0].equal(logits[1]) and again.compression is None


def test_code_goes_with_weights(tmp_path: Path) -> None:
    model = dlens.load(save_llada(tmp_path / "llada"), trust_remote_code=True)
    small = dlens.compress(model, "rtn", bits=4)
    again = dlens.load(small.save(tmp_path / "small"), trust_remote_code=True)
    assert again.family.name == "llada" and again.compression == small.compression
    ids = [[5, 6, 7, 8]]
    records = [dlens.trace(each).capture("logits").forward(ids) for each in (small, again)]
    assert records[0]["logits"].equal(records[1]["logits"])


def test_a_folder_with_something_in_it_is_left_alone(small: dlens.Model, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is there and not empty; expected a new folder.*remove it"):
        small.save(tmp_path)
    assert os.listdir(tmp_path) == ["note"]
    (tmp_path / "empty").mkdir()
    assert json.loads((small.save(tmp_path / "empty") / "config.json").read_text())["dlens_family"] == "masked"


@pytest.mark.parametrize("file", ["config.json", "dlens_compression.json"])
def test_what_ends_in_the_middle_leaves_nothing(
    small: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write = Path.write_text

    def failing(path: Path, *args, **kwargs):
        if path.name == file:
            raise KeyboardInterrupt
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(KeyboardInterrupt):
        small.save(tmp_path / "small")
    assert os.listdir(tmp_path) == []


def test_what_no_folder_can_hold_is_refused(tmp_path: Path) -> None:
    module = build(CONFIGS["llama"][0])
    family = dlens.Family("one-of-mine", "autoregressive", 1)
    with pytest.raises(ValueError, match=r"is of family 'one-of-mine', which is not registered"):
        dlens.load(module, family=family).save(tmp_path / "x")
    forward = module.model.layers[0].mlp.forward
    module.model.layers[0].mlp.forward = lambda x: forward(x) * 2
    with pytest.raises(ValueError, match=r"has another forward on model\.layers\.0\.mlp, which is not saved"):
        dlens.load(module, verify=False).save(tmp_path / "x")
    assert os.listdir(tmp_path) == []

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dlens.features.reading import read_config, read_tensors, take
from tests.refusing import assert_three_parts


@pytest.mark.parametrize("text", ["{", "[1]", "3", "\udc80"])
def test_a_config_is_a_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "cfg.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError) as caught:
        read_config(tmp_path / "cfg.json")
    assert_three_parts(str(caught.value), str(tmp_path / "cfg.json"))


def test_weights_are_read_in_float32(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([0.5], dtype=torch.float16)}, tmp_path / "w.safetensors")
    found = read_tensors(tmp_path / "w.safetensors")
    assert found["a"].dtype == torch.float32 and found["a"].tolist() == [0.5]
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError) as caught:
        read_tensors(tmp_path / "w.safetensors")
    assert_three_parts(str(caught.value), "w.safetensors cannot be read")


def test_a_weight_that_is_missing_is_named() -> None:
    tensors = {"b": torch.ones(1, dtype=torch.float64), "a": torch.ones(1)}
    assert take(tensors, "b", Path("here")).dtype == torch.float32
    with pytest.raises(ValueError) as caught:
        take(tensors, "W_enc", Path("here"))
    assert_three_parts(str(caught.value), "here has the tensors a, b")

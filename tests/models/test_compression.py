"""What was done to a model's weights, as data."""

from dataclasses import replace
from pathlib import Path

import pytest

import dlens
from dlens.models.compression import COMPRESSION_FILE, Compression, Treated, read_compression

ROW = Treated(0, "mlp.up_proj", 100, None, 0.5, 0.5, 0.0, 0.3, None)
PRUNED = {"method": "wanda", "bits": None, "sparsity": 0.5, "allocation": "uniform"}
ROUNDED = {"method": "rtn", "bits": 3, "group": 64, "symmetric": True}


def done(settings: dict, **changes: object) -> Compression:
    return replace(
        Compression("trio/ar", settings, (ROW, replace(ROW, weights=300, zeros=0.1)), {}, 0.8, 1.0), **changes
    )


def test_words_say_what_matters() -> None:
    assert (
        repr(done(PRUNED))
        == "wanda, 50 % zeros, uniform of trio/ar: 2 matrices; 0.80 of all weights, 0.20 of them zero"
    )
    assert done(PRUNED | {"allocation": (0.4, 0.6)}).words == "wanda, 50 % zeros, own allocation"
    assert done(ROUNDED | {"group": None, "symmetric": False}).words == "rtn, 3 bits, whole rows, asymmetric"
    left = done(ROUNDED, left_out={f"layer {n} x": "why" for n in range(5)})
    assert "2 matrices, 5 left out (layer 0 x, layer 1 x, layer 2 x); 0.80" in repr(left)


def test_a_weight_needs_its_bits_and_a_part_of_its_groups() -> None:
    assert done(ROUNDED).bits == 3 + 16 / 64
    assert done(ROUNDED | {"symmetric": False}).bits == 3 + 19 / 64
    assert done(ROUNDED | {"group": None}).bits == 3 and done(PRUNED).bits is None


def test_it_comes_back_from_text() -> None:
    found = done(PRUNED, before=done(ROUNDED), left_out={"a": "b"})
    assert Compression.from_json(found.to_json()) == found
    for text in ("{", "[]", "{}", '{"model": 3}'):
        with pytest.raises(ValueError, match=f"a text of {len(text)} characters that is no compression"):
            Compression.from_json(text)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_compression(tmp_path) is None
    (tmp_path / COMPRESSION_FILE).write_text("{")
    with pytest.raises(ValueError, match=rf"{COMPRESSION_FILE} cannot be read: .*save the model again"):
        read_compression(tmp_path)


def test_a_model_as_it_is_says_nothing(ar: dlens.Model) -> None:
    assert ar.compression is None

"""Records of format 1 load to the bit, and what is saved of them is of the present format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dlens

DATA = Path(__file__).parent / "data"
KINDS = {"forward": "cosine", "denoising": "drift", "decoding": "top_tokens"}


def assert_as_written(record: dlens.Record, folder: Path) -> None:
    """A record holds what its files of format 1 say."""
    header, tensors = json.loads((folder / "record.json").read_text()), load_file(folder / "tensors.safetensors")
    for name, entry in header["captured"].items():
        assert torch.equal(record[name], tensors.pop(f"captured/{name}")) and list(record.dims(name)) == entry["dims"]
    for key, entry in header["measures"].items():
        data = record.measures[key]
        assert data.attrs == entry["attrs"] and set(data.data_vars) == set(entry["dims"])
        assert {name: [list(c.dims), c.values.tolist()] for name, c in data.coords.items()} == entry["coords"]
        for name, dims in entry["dims"].items():
            values, kept = tensors.pop(f"measures/{key}/{name}"), torch.tensor(data[name].values)
            assert kept.dtype == values.dtype and kept.numpy().tobytes() == values.numpy().tobytes()
            assert list(data[name].dims) == dims
    assert all(torch.equal(getattr(record, name), tensors[name]) for name in tensors)
    for name in ("kind", "model", "family", "text", "n_steps", "planned_steps", "settings", "seconds", "versions"):
        assert getattr(record, name) == header[name]
    assert [list(record.plan), list(record.notes), list(record.unfired)] == [
        header[name] for name in ("plan", "notes", "unfired")
    ]
    assert [record.flops, record.flops + record.saved_flops] == header["flops"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_format_1(kind: str, tmp_path: Path) -> None:
    record = dlens.load_record(DATA / kind)
    assert (record.kind, list(record.measures)) == (kind, [KINDS[kind]]) and len(record.captured) == 1
    assert_as_written(record, DATA / kind)
    record.save(tmp_path)
    assert json.loads((tmp_path / "record.json").read_text())["format"] == 2
    assert_as_written(dlens.load_record(tmp_path), DATA / kind)


def test_a_measure_that_format_1_lacks_is_named(tmp_path: Path) -> None:
    for path in (DATA / "forward").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    header = json.loads((tmp_path / "record.json").read_text())
    header["measures"]["norms"] = header["measures"]["cosine"]
    (tmp_path / "record.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="lacks 'measures/norms/cosine'; expected all that record.save wrote"):
        dlens.load_record(tmp_path)

"""Records are saved and loaded without the model, and refused when damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens import trace
from tests.refusing import STORY, assert_three_parts
from tests.tracing.plain import PROMPTS
from tests.tracing.records.made import made_record, number_of


def test_saved_and_loaded_without_the_model(record: dlens.Record, tmp_path: Path) -> None:
    record.save(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["measures", "record.json", "tensors.safetensors"]
    assert sorted(p.name for p in (tmp_path / "run" / "measures").iterdir()) == ["cosine.nc", "outliers.nc"]
    loaded = dlens.load_record(tmp_path / "run")
    for name in ("tokens", "is_pad", "is_prompt", "canvas", "committed_at"):
        assert torch.equal(getattr(loaded, name), getattr(record, name))
    for name in ("resid_post", "blocks.4.hook_attn_out"):
        assert torch.equal(loaded[name], record[name])
        assert loaded.dims(name) == record.dims(name) and loaded.coords(name) == record.coords(name)
    for key in ("cosine", "outliers"):
        xr.testing.assert_identical(loaded.measures[key], record.measures[key])
    assert (loaded.text, loaded.plan, loaded.notes) == (record.text, record.plan, record.notes)
    assert (loaded.flops, loaded.saved_flops) == (record.flops, record.saved_flops)
    assert loaded.versions == record.versions and loaded.settings == record.settings
    loaded.save(tmp_path / "run")


def test_saved_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    model = dlens.load("trio/ar", dtype="bfloat16")
    record = dlens.trace(model).capture("resid_post", layers=[2]).generate("Once upon a time", 3)
    record.save(tmp_path)
    loaded = dlens.load_record(tmp_path)
    assert loaded["resid_post"].dtype == torch.bfloat16
    assert torch.equal(loaded["resid_post"], record["resid_post"])
    assert loaded.canvas is None and loaded.step_of_position is not None
    assert loaded.to_xarray()["resid_post"].dtype == "float32"


def test_damaged_and_wrong_folders_are_refused(record: dlens.Record, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no record.json; expected a folder"):
        dlens.load_record(tmp_path)
    folder = tmp_path / "run"
    record.save(folder)
    tensors = (folder / "tensors.safetensors").read_bytes()
    (folder / "tensors.safetensors").write_bytes(tensors[: len(tensors) // 2])
    with pytest.raises(ValueError, match="damaged"):
        dlens.load_record(folder)
    (folder / "tensors.safetensors").write_bytes(tensors)
    header = json.loads((folder / "record.json").read_text())
    for broken, message in (
        ("{", "not JSON"),
        (json.dumps(header | {"format": 99}), "format 99"),
        (json.dumps({k: v for k, v in header.items() if k != "plan"}), "lacks 'plan'"),
    ):
        (folder / "record.json").write_text(broken)
        with pytest.raises(ValueError, match=message):
            dlens.load_record(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        record.save(other)


def test_tensors_of_another_record_are_refused(record: dlens.Record, diffusion: dlens.Model, tmp_path: Path) -> None:
    record.save(tmp_path / "one")
    trace = dlens.trace(diffusion).capture("resid_post", layers=[0, -1], steps=range(1, 5))
    trace = trace.capture("blocks.4.hook_attn_out").measure(dlens.Cosine(), dlens.Outliers())
    trace.generate(PROMPTS[:2], 8).save(tmp_path / "two")
    (tmp_path / "one" / "tensors.safetensors").write_bytes((tmp_path / "two" / "tensors.safetensors").read_bytes())
    with pytest.raises(ValueError, match="resid_post of shape"):
        dlens.load_record(tmp_path / "one")


def test_anyone_opens_a_measure(record: dlens.Record, tmp_path: Path) -> None:
    record.save(tmp_path)
    opened, own = xr.load_dataset(tmp_path / "measures" / "cosine.nc"), record.measures["cosine"]
    assert opened["cosine"].dims == own["cosine"].dims
    np.testing.assert_array_equal(opened["cosine"].sel(state="masked"), own["cosine"].sel(state="masked"))
    assert opened.attrs["n"] == own.attrs["n"] and opened.attrs["estimator"] == own.attrs["estimator"]


def test_any_text_is_the_key_of_a_measure(ar: dlens.Model, tmp_path: Path) -> None:
    keys = ["a/b", "..", "é x", "CON:"]
    record = dlens.trace(ar).measure(*(dlens.Cosine(name=key) for key in keys)).forward("Once")
    record.save(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    loaded = dlens.load_record(tmp_path / "run")
    assert list(loaded.measures) == keys
    assert all(loaded.measures[key].identical(record.measures[key]) for key in keys)


def test_a_record_saved_over_another_leaves_no_file_of_it(record: dlens.Record, tmp_path: Path) -> None:
    record.save(tmp_path)
    replace(record, measures={"cosine": record.measures["cosine"]}).save(tmp_path)
    assert [path.name for path in (tmp_path / "measures").iterdir()] == ["cosine.nc"]


def test_a_measure_that_is_gone_is_named(record: dlens.Record, tmp_path: Path) -> None:
    record.save(tmp_path)
    (tmp_path / "measures" / "cosine.nc").unlink()
    with pytest.raises(FileNotFoundError, match="has no measures/cosine.nc; expected a folder"):
        dlens.load_record(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, ar: dlens.Model) -> Path:
    """A record of a forward."""
    folder = tmp_path_factory.mktemp("records") / "record"
    trace(ar).capture("resid_post").measure(dlens.Cosine()).forward(STORY).save(folder)
    return folder


def edit_header(folder: Path, **changes: Any) -> None:
    path = folder / "record.json"
    header = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in header.items() if value is not ...}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_tensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"tokens": torch.ones(1, 2)}, folder / "tensors.safetensors")


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "tensors.safetensors") | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "tensors.safetensors")


DAMAGE: dict[str, tuple[type[Exception], str, Callable[[Path], Any]]] = {
    "cut header": (ValueError, "record.json is not JSON", lambda f: cut(f / "record.json")),
    "binary header": (
        ValueError,
        "record.json is not JSON",
        lambda f: (f / "record.json").write_bytes(b"\xff\xfe\x00"),
    ),
    "list for a header": (ValueError, "format 'list'", lambda f: (f / "record.json").write_text("[]")),
    "newer format": (ValueError, "format 99", lambda f: edit_header(f, format=99)),
    "header without plan": (ValueError, "'plan'", lambda f: edit_header(f, plan=...)),
    "header without captures": (ValueError, "'captured'", lambda f: edit_header(f, captured=...)),
    "cut tensors": (ValueError, "tensors.safetensors is damaged", lambda f: cut(f / "tensors.safetensors")),
    "empty tensors": (ValueError, "is damaged", lambda f: (f / "tensors.safetensors").write_bytes(b"")),
    "other tensors": (ValueError, "captured/resid_post", other_tensors),
    "no tokens": (ValueError, "lacks 'tokens'", lambda f: edit_tensors(f, tokens=None)),
    "a token of 10^12": (ValueError, "tokens from", lambda f: edit_tensors(f, tokens=torch.full((1, 4), 10**12))),
    "a token below 0": (ValueError, "tokens from", lambda f: edit_tensors(f, tokens=torch.full((1, 4), -1))),
    "tokens of one axis": (ValueError, "tokens of shape [4]", lambda f: edit_tensors(f, tokens=torch.ones(4).long())),
    "numbers for a mask": (ValueError, "is_pad of shape", lambda f: edit_tensors(f, is_pad=torch.zeros(1, 4).long())),
    "a narrower mask": (ValueError, "is_prompt of shape", lambda f: edit_tensors(f, is_prompt=torch.ones(1, 3).bool())),
    "a canvas of other rows": (
        ValueError,
        "canvas of shape",
        lambda f: edit_tensors(f, canvas=torch.ones(1, 2, 4).long()),
    ),
    "denoising without a canvas": (ValueError, "lacks 'canvas'", lambda f: edit_header(f, kind="denoising")),
    "null for notes": (ValueError, "'notes'", lambda f: edit_header(f, notes=None)),
    "no tensors": (FileNotFoundError, "no tensors.safetensors", lambda f: (f / "tensors.safetensors").unlink()),
    "no header": (FileNotFoundError, "no record.json", lambda f: (f / "record.json").unlink()),
    "empty folder": (FileNotFoundError, "no record.json", lambda f: (shutil.rmtree(f), f.mkdir())),
    "no folder": (FileNotFoundError, "no record.json", shutil.rmtree),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record(saved: Path, tmp_path: Path, case: str) -> None:
    kind, came, damage = DAMAGE[case]
    folder = tmp_path / "record"
    shutil.copytree(saved, folder)
    assert dlens.load_record(folder).n_steps == 1
    damage(folder)
    with pytest.raises(kind) as caught:
        dlens.load_record(folder)
    assert type(caught.value) is kind
    assert_three_parts(str(caught.value), came)
    assert str(folder) in str(caught.value)


def test_a_record_is_not_saved_over_other_files(ar: dlens.Model, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter one")
    record = dlens.load_record(saved)
    with pytest.raises(FileExistsError) as caught:
        record.save(tmp_path)
    assert_three_parts(str(caught.value), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(FileExistsError) as caught:
        record.save(tmp_path / "thesis.tex")
    assert_three_parts(str(caught.value), "thesis.tex")


def swapped(path: Path, old: bytes, new: bytes) -> None:
    """Other numbers in the place of some."""
    held = path.read_bytes()
    assert old in held
    path.write_bytes(held.replace(old, new))


EDITS: dict[str, Callable[[Path], Any]] = {
    "tensors.safetensors": lambda folder: swapped(
        folder / "tensors.safetensors", np.full(32, 2).tobytes(), np.full(32, 3).tobytes()
    ),
    "even.nc": lambda folder: swapped(
        folder / "measures" / "even.nc", np.full(2, 2, ">i4").tobytes(), np.full(2, 3, ">i4").tobytes()
    ),
    "record.json": lambda folder: edited(folder, "flops", [1, 1]),
}


def edited(folder: Path, name: str, value: Any) -> None:
    header = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(header | {name: value}))


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_of_a_saved_file_is_found(file: str, tmp_path: Path) -> None:
    made_record(2).save(tmp_path)
    assert number_of(dlens.load_record(tmp_path)) == 2
    EDITS[file](tmp_path)
    with pytest.raises(ValueError) as caught:
        dlens.load_record(tmp_path)
    assert_three_parts(str(caught.value), file)


def test_records_without_sums_still_load(tmp_path: Path) -> None:
    made_record(2).save(tmp_path)
    header = json.loads((tmp_path / "record.json").read_text())
    older = {name: value for name, value in header.items() if name not in ("sums", "own_sum")}
    (tmp_path / "record.json").write_text(json.dumps(older))
    assert number_of(dlens.load_record(tmp_path)) == 2


def test_a_loaded_record_does_not_read_its_files_again(tmp_path: Path) -> None:
    made_record(2).save(tmp_path)
    record = dlens.load_record(tmp_path)
    (tmp_path / "tensors.safetensors").write_bytes(bytes((tmp_path / "tensors.safetensors").stat().st_size))
    assert number_of(record) == 2

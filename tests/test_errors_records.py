"""Records that are damaged, in the way, or lack what is asked of them say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens import trace
from tests.refusing import assert_three_parts

STORY = "Once upon a time"


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


def test_a_loaded_record_says_what_it_does_not_hold(saved: Path) -> None:
    record = dlens.load_record(saved)
    with pytest.raises(KeyError) as caught:
        record["mlp_out"]
    assert_three_parts(caught.value.args[0], "'mlp_out'")
    with pytest.raises(KeyError):
        record["blocks.99.hook_resid_post"]
    with pytest.raises(ValueError, match="'attn_oot'"):
        record["attn_oot"]

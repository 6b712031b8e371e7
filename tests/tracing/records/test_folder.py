"""A save is seen whole or not at all: by who reads meanwhile, after a kill anywhere, on a full disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.files import unfinished
from tests.refusing import assert_three_parts
from tests.test_files import full_disk
from tests.tracing.records.made import made_record, number_of

PLAIN = ["measures", "record.json", "tensors.safetensors"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved record, with the number 1."""
    made_record(1).save(tmp_path / "run")
    return tmp_path / "run"


def test_a_save_killed_at_any_step_leaves_the_older_or_the_new_record(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[Path] = []

    def seen(change: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with the folder as a kill just before would leave it kept."""

        def keep(*arguments: Any, **named: Any) -> Any:
            states.append(tmp_path / "states" / str(len(states)))
            shutil.copytree(folder, states[-1])
            return change(*arguments, **named)

        return keep

    with monkeypatch.context() as patched:
        for owner, name in [(Path, n) for n in ("mkdir", "rename", "replace", "rmdir", "unlink")] + [
            (shutil, "rmtree")
        ]:
            patched.setattr(owner, name, seen(getattr(owner, name)))
        made_record(2).save(folder)
    assert number_of(dlens.load_record(folder)) == 2 and names(folder) == PLAIN
    found = [number_of(dlens.load_record(state)) for state in states]
    assert found == sorted(found) and set(found) == {1, 2} and found.count(2) >= 4
    for state in states:
        # Whatever was left, the next save is whole, and tidies what no running process writes.
        made_record(3).save(state)
        assert number_of(dlens.load_record(state)) == 3
        assert [name for name in names(state) if not name.endswith(".unfinished")] == PLAIN


def test_who_reads_during_saves_sees_one_record(folder: Path) -> None:
    over = threading.Event()

    def save() -> None:
        number = 1
        while not over.is_set():
            number += 1
            made_record(number).save(folder)

    writers = [threading.Thread(target=save) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        found = [number_of(dlens.load_record(folder)) for _ in range(20)]
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert len(set(found)) > 1


def test_the_older_record_survives_a_full_disk(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    roomy = tmp_path / "roomy"
    made_record(2).save(roomy)
    largest = max(path.stat().st_size for path in roomy.rglob("*") if path.is_file())
    for left in (0, 500, largest - 1):
        with full_disk(left), pytest.raises(OSError) as caught:
            made_record(2).save(folder)
        assert_three_parts(str(caught.value), f"{folder} cannot be written")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_a_killed_save_left_blocks_no_other(folder: Path) -> None:
    left = unfinished(folder / "save")
    left = left.with_name(left.name.replace("-", "-9" + "9" * 8, 1))
    left.mkdir()
    (folder / ".tmpAbC123").write_bytes(b"half of some tensors, by an older dlens")
    (folder / f".{'0' * 16}.saved").mkdir()
    made_record(2).save(folder)
    assert number_of(dlens.load_record(folder)) == 2
    assert {".tmpAbC123", f".{'0' * 16}.saved"}.isdisjoint(names(folder))


def test_a_save_through_a_symbolic_link_is_where_it_points(folder: Path, tmp_path: Path) -> None:
    for name, target in (("old", folder), ("new", tmp_path / "elsewhere")):
        link = tmp_path / name
        link.symlink_to(target)
        made_record(4).save(link)
        assert link.is_symlink() and number_of(dlens.load_record(target)) == 4 == number_of(dlens.load_record(link))
        assert names(target) == PLAIN


@pytest.mark.parametrize("name", ["tensors.safetensors", "measures/even.nc"])
def test_a_file_of_another_save_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    made_record(3).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / name, folder / name)
    with pytest.raises(ValueError, match="holds files of several saves; expected those of one; save") as caught:
        dlens.load_record(folder)
    assert_three_parts(str(caught.value), str(folder))

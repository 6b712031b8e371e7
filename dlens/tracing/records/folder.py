"""The folder of a record: a save is seen whole or not at all, and an older record stays until the new one is there."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dlens.files import in_words, remove_leftovers, sync, unfinished

__all__ = ["INDEX", "MEASURES", "TENSORS", "find", "read_alone", "refuse_changed", "replaced", "sums"]

INDEX, TENSORS, MEASURES = "record.json", "tensors.safetensors", "measures"
# A finished save on its way to the plain names, and what safetensors leaves where an older dlens was killed.
_SAVED = re.compile(r"\.[0-9a-f]{16}\.saved")
_LEFT = re.compile(r"\.tmp\w{6}|\..*\.unfinished")


@contextmanager
def replaced(folder: Path) -> Iterator[tuple[Path, str]]:
    """Where to write the files of a record, and the name of this save, which the index must hold as "saved".

    The files are written beside the older record's. Then the index is replaced, which is the moment when the new
    record is there; then its files move to the plain names. Until one has moved, `find` looks where it was written,
    so that a process may be killed anywhere.

    Raises:
        OSError: the folder holds other files, or cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    _refuse_others(folder)
    with in_words(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        saved = secrets.token_hex(8)
        new = unfinished(folder / "save")
        try:
            (new / MEASURES).mkdir(parents=True)
            yield new, saved
            for path in _files(new):
                sync(path)
            with _locked(folder, alone=True):
                _commit(new, folder, saved)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _refuse_others(folder: Path) -> None:
    """Nothing but an older record is written over."""
    if folder.exists() and not (folder.is_dir() and all(_own(path.name) for path in folder.iterdir())):
        raise FileExistsError(
            f"{folder} is a file or holds other files; expected a new folder or an older record; give another folder"
        )


def _own(name: str) -> bool:
    return name in (INDEX, TENSORS, MEASURES) or bool(_SAVED.fullmatch(name) or _LEFT.fullmatch(name))


def _commit(new: Path, folder: Path, saved: str) -> None:
    here = folder / f".{saved}.saved"
    new.rename(here)
    (here / INDEX).replace(folder / INDEX)
    # The new record is there; what follows gives its files their plain names, which `find` can do without.
    with suppress(OSError):
        _tidy(folder, here)


def _tidy(folder: Path, here: Path) -> None:
    kept = [path.relative_to(here) for path in _files(here)]
    for name in kept:
        (folder / name).parent.mkdir(exist_ok=True)
        (here / name).replace(folder / name)
    for path in (folder / MEASURES).glob("*.nc"):
        if path.relative_to(folder) not in kept:
            path.unlink()
    for path in folder.iterdir():
        if _SAVED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(".tmp"):
            path.unlink()
    if (folder / MEASURES).is_dir() and not any((folder / MEASURES).iterdir()):
        (folder / MEASURES).rmdir()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): _sum(path) for path in sorted(_files(folder))}


def refuse_changed(folder: Path, saved: str | None, known: Mapping[str, str]) -> None:
    """Refuse files that are not as they were saved.

    Args:
        folder, saved: as of `find`.
        known: the sum of each file, from the index.

    Raises:
        ValueError: names the file.
    """
    for name, expected in known.items():
        if _sum(path := find(folder, saved, name)) != expected:
            raise ValueError(
                f"{path} is damaged (it is not as it was saved); expected what record.save wrote; save the record again"
            )


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(folder: Path, saved: str | None, name: str) -> Path:
    """A file of the record that the index describes.

    Args:
        folder: of the record.
        saved: the name of the save, from the index; older records have none.
        name: of the file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    for path in ([] if saved is None else [folder / f".{saved}.saved" / name]) + [folder / name]:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {name}; expected a folder written by record.save(folder); check the path")


@contextmanager
def read_alone(folder: Path) -> Iterator[None]:
    """While the body reads, no save replaces the record."""
    with _locked(folder, alone=False):
        yield


@contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process; where there are none, the body runs without."""
    if os.name != "posix" or not folder.is_dir():
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems have no locks: the name of a save in each of its files then tells a mixture.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)

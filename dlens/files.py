"""Files are written beside their place and renamed onto it: whole, or what was there before stays."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = [
    "alone",
    "check_file",
    "check_folder",
    "in_words",
    "remove_leftovers",
    "sync",
    "unfinished",
    "write_text",
    "written",
]

_LEFTOVER = re.compile(r"\..*\.(?P<host>[^/]+)-(?P<pid>\d+)-[0-9a-f]{8}\.unfinished")
# Whether a process of another host still writes cannot be asked; after a day it does not.
_LONGEST_WRITE = 24 * 60 * 60


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Where to write a file so that its place gets all of it, or keeps what it had.

    Whatever happens before the body is over (an error, a full disk, a killed process), the older file stays. A
    symbolic link stays one: the file that it names is replaced. What a killed process left unfinished beside it goes.

    Args:
        path: the file's place; its folder is made.

    Raises:
        OSError: it cannot be written.

    Examples:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with written(place) as beside:
        ...     size = beside.write_text("1 2 3")
        ...     place.exists()
        False
        >>> place.read_text(), len(list(place.parent.iterdir()))
        ('1 2 3', 1)
    """
    place = Path(os.path.realpath(path))
    with in_words(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file() and not place.is_dir():
            # A device or a pipe takes what comes, and has nothing to keep.
            yield place
            return
        remove_leftovers(place.parent)
        beside = unfinished(place)
        try:
            yield beside
            if place.exists():
                shutil.copymode(place, beside)
            sync(beside)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write text as UTF-8, whole or not at all; see `written`.

    Returns:
        The path.
    """
    with written(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return Path(path)


@contextmanager
def in_words(path: str | Path) -> Iterator[None]:
    """An OSError of the body says what could not be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        what = (
            f"{path} cannot be written ({error.strerror or error}); expected room for it in a folder of yours, and "
            f"what was there before stays; make room, or name another place"
        )
        raise (OSError(what) if error.errno is None else OSError(error.errno, what)) from error


def unfinished(place: Path) -> Path:
    """A name beside a place for what is not yet whole, by which any process knows whether it is left over."""
    return place.with_name(
        f".{place.name[:64]}.{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.unfinished",
    )


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that are no more left unfinished in a folder."""
    with os.scandir(folder) as entries:
        leftovers = [entry for entry in entries if _is_leftover(entry)]
    for entry in leftovers:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(entry.path)


def _is_leftover(entry: os.DirEntry[str]) -> bool:
    match = _LEFTOVER.fullmatch(entry.name)
    if match is None:
        return False
    if match["host"] == platform.node() and os.name == "posix":
        return not _runs(int(match["pid"]))
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _LONGEST_WRITE
    return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync(path: Path) -> None:
    """Wait until a file is on the disk, so that no rename comes before its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against all others that ask for it so; the hold ends with the process.

    Raises:
        BlockingIOError: another holds it.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{folder} is written to by another run; expected one at a time; wait for it, or give another folder"
            ) from error
        # Some network file systems have no locks.
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def check_file(path: str | Path, *endings: str) -> Path:
    """Where a file can be written, with its folder made: asked before anything is computed for it.

    Args:
        path: the file.
        endings: which of these its name must have, such as ".json".

    Raises:
        ValueError, OSError: it cannot be written.
    """
    where = Path(path)
    if where.suffix not in endings:
        raise ValueError(
            f"{where} to write; expected a name that ends in {' or '.join(endings)}; write "
            f"{where.with_suffix(endings[0]) if where.name else 'a name'}"
        )
    place = Path(os.path.realpath(where))
    if not _takes_files(place.parent) or place.exists() and not (place.is_file() and os.access(place, os.W_OK)):
        raise PermissionError(f"{where} cannot be written; expected a file in a folder of yours; name another one")
    return where


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or takes no files; one that is not there yet is left so.

    Raises:
        OSError: it cannot be used.
    """
    if os.path.lexists(path) and not (path.is_dir() and _takes_files(path)):
        raise PermissionError(
            f"{path} is no folder that can be written to; expected one of yours, or nothing of this name; rename it, "
            f"or name another place"
        )


def _takes_files(folder: Path) -> bool:
    probe = unfinished(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True

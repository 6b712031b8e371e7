"""Who computes which unit: a file that one process can create, kept young meanwhile, taken over after its death.

The n-th claim of a unit is the file `NAME.n`, and can be made by one process alone, so two that find a dead holder
cannot both take its place. Whoever made the last one holds the unit.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

import psutil

__all__ = ["Claim", "beating", "claim", "is_held"]

# A holder on another machine touches its claim this often, and is taken for dead after this long.
_BEAT, _PATIENCE = 20.0, 300.0


@final
@dataclass(frozen=True)
class Claim:
    """A unit that this process holds.

    Args:
        folder: of claims.
        name: the unit.
        number: which claim it is: 0 is the first, and each later one found its holder dead.
    """

    folder: Path
    name: str
    number: int

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / f"{self.name}.{self.number}"

    def release(self) -> None:
        """Let go of the unit, and of what its dead holders left."""
        for number in range(self.number + 1):
            (self.folder / f"{self.name}.{number}").unlink(missing_ok=True)


def claim(folder: Path, name: str) -> Claim | None:
    """Take a unit; None where a living process holds it.

    Args:
        folder: of claims; it is made.
        name: the unit.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = claim(folder, "a")
        >>> first.number, claim(folder, "a")
        (0, None)
        >>> first.release()
        >>> claim(folder, "a").number
        0
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = _last(folder, name)
    if last >= 0 and _alive(folder / f"{name}.{last}"):
        return None
    taken = Claim(folder, name, last + 1)
    try:
        with taken.path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(_me()))
    except FileExistsError:
        return None
    return taken


def is_held(folder: Path, name: str) -> bool:
    """Whether a living process holds a unit."""
    last = _last(folder, name)
    return last >= 0 and _alive(folder / f"{name}.{last}")


@contextmanager
def beating(taken: Claim) -> Iterator[None]:
    """While the body runs, processes of other machines see that the claim's holder is alive."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT):
            with suppress(OSError):
                os.utime(taken.path)

    thread = threading.Thread(target=beat, name="claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _last(folder: Path, name: str) -> int:
    """The number of a unit's last claim; -1 where there is none."""
    last = -1
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            unit, _, number = entry.name.rpartition(".")
            if unit == name and number.isdecimal():
                last = max(last, int(number))
    return last


def _alive(path: Path) -> bool:
    """Whether the process that made a claim still computes."""
    try:
        text, age = path.read_text(encoding="utf-8"), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    try:
        holder = json.loads(text)
        here = holder["place"] == _place()
    except (ValueError, TypeError, KeyError):
        # It is being written, or was damaged.
        return age < _BEAT
    return _is_process(holder["pid"], holder["born"]) if here else age < _PATIENCE


def _is_process(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _me() -> dict[str, object]:
    return {"place": _place(), "pid": os.getpid(), "born": psutil.Process().create_time()}


@cache
def _place() -> str:
    """Where process numbers mean the same: the machine since it started, and the container."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{platform.node()} {int(psutil.boot_time())} {namespace}"

"""The folder that workers share: what is to be done, by whom it is held, what failed, and where results go."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from dlens.files import write_text
from dlens.workers.claims import is_held

__all__ = ["Board", "Failure", "Standing"]

_UNIT = ".unit"


@final
@dataclass(frozen=True)
class Failure:
    """A unit that could not be computed.

    Args:
        words: what it is.
        error: its kind and its message.
        traceback: all of it.
        where: the machine.

    Examples:
        >>> print(Failure("skip layer 3", "ValueError: no", "...", "node1"))
        skip layer 3: ValueError: no
    """

    words: str
    error: str
    traceback: str
    where: str

    def __str__(self) -> str:
        return f"{self.words}: {self.error}"


@final
@dataclass(frozen=True)
class Standing:
    """How far the units of a folder are.

    Args:
        done, running, waiting, failed: how many; those that wait are held by no worker that is alive.

    Examples:
        >>> print(Standing(done=3, running=2, waiting=1, failed=0))
        3 of 6 done, 2 running, 1 waiting
    """

    done: int
    running: int
    waiting: int
    failed: int

    def __str__(self) -> str:
        total = self.done + self.running + self.waiting + self.failed
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {total} done, {self.running} running, {self.waiting} waiting{failed}"


@final
@dataclass(frozen=True)
class Board:
    """The folders of a computation.

    Args:
        results: one file a result, by the store.
        work: units to do, who holds them, models, failures and logs.
    """

    results: Path
    work: Path

    @property
    def units(self) -> Path:
        """Units that are not finished: a file each, which goes when its result or its failure is there."""
        return self.work / "units"

    @property
    def claims(self) -> Path:
        """Who holds which unit."""
        return self.work / "claims"

    @property
    def models(self) -> Path:
        """The models that units need, by what they compute."""
        return self.work / "models"

    @property
    def logs(self) -> Path:
        """What workers wrote."""
        return self.work / "logs"

    def unit(self, name: str) -> Path:
        """The file of a unit that is not finished."""
        return self.units / f"{name}{_UNIT}"

    def unfinished(self, names: Collection[str] | None = None) -> list[str]:
        """The names of units that are neither computed nor failed, in the order in which they were written.

        Args:
            names: of these; None is of all that anybody asked for.
        """
        found: list[tuple[int, str]] = []
        with suppress(FileNotFoundError), os.scandir(self.units) as entries:
            for entry in entries:
                if entry.name.endswith(_UNIT):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime_ns, entry.name.removesuffix(_UNIT)))
        return [name for _, name in sorted(found) if names is None or name in names]

    def failure(self, name: str) -> Failure | None:
        """Why a unit could not be computed; None where it was not tried, or tried again."""
        try:
            return Failure(**json.loads(self._failed(name).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def fail(self, name: str, failure: Failure) -> None:
        """Keep why a unit could not be computed; nobody takes it up again until it is asked for."""
        write_text(self._failed(name), json.dumps(asdict(failure)))
        self.unit(name).unlink(missing_ok=True)

    def forgive(self, name: str) -> None:
        """Let a unit that failed be tried again."""
        self._failed(name).unlink(missing_ok=True)

    def standing(self, names: Collection[str] | None = None) -> Standing:
        """How far it is, from the files alone.

        Args:
            names: of these units; None is of all that anybody asked for.
        """
        left = self.unfinished(names)
        running = sum(is_held(self.claims, name) for name in left)
        done, failed = (_count(folder, names) for folder in (self.results, self.work / "failed"))
        return Standing(done, running, len(left) - running, failed)

    def _failed(self, name: str) -> Path:
        return self.work / "failed" / f"{name}.json"


def _count(folder: Path, names: Collection[str] | None) -> int:
    with suppress(FileNotFoundError):
        there = [path.stem for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
        return len(there) if names is None else len(set(there) & set(names))
    return 0

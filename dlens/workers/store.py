"""Finished parts of a long computation, on disk, so that it goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, final

from dlens.checks import as_flag
from dlens.files import unfinished, write_text

__all__ = ["Store", "code_digest"]

_PACKAGE = Path(__file__).parents[1]
# What shows numbers, and computes none.
_DRAWING = ("show", "widgets", "commands", "cli.py")


@final
@dataclass(frozen=True)
class Store:
    """A folder of results, each in a file named by what was asked.

    Args:
        folder: where; None keeps nothing.
        fresh: compute everything again.
        reused: which files were read instead of computed.
    """

    folder: Path | None = None
    fresh: bool = False
    reused: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        as_flag(self.fresh, "fresh")

    def once(
        self, asked: Mapping[str, Any], compute: Callable[[], Any], read: Callable[[Any], Any] = lambda result: result
    ) -> Any:
        """What was computed before for the same question, or is computed now and kept.

        A file that holds something else (it is cut, was edited, or answers another question) is computed again, with
        a warning that names it.

        Args:
            asked: all that the result depends on, as plain data; this version of dlens's code is added.
            compute: gives plain data.
            read: makes of the plain data what is returned; it raises where they are not such a result.

        Raises:
            OSError: the result cannot be kept.

        Examples:
            >>> Store().once({"part": "sum"}, lambda: 1 + 1)
            2
        """
        if self.folder is None:
            return read(compute())
        found = self.found(asked, read)
        if found is not None:
            self.reused.append(self.place(asked))
            return found[0]
        question, path = _question(asked), self.place(asked)
        computed = compute()
        if path.is_dir():
            # Whose it is cannot be known, so it is not deleted.
            path.rename(unfinished(path).with_suffix(".aside"))
        write_text(path, json.dumps({"asked": json.loads(question), "result": computed, "sum": _sum(computed)}))
        return read(computed)

    def found(self, asked: Mapping[str, Any], read: Callable[[Any], Any] = lambda result: result) -> tuple[Any] | None:
        """What was computed before, as the only item of a tuple; None where it has to be computed.

        Examples:
            >>> Store().found({"part": "sum"})
        """
        if self.folder is None or self.fresh or not self.place(asked).exists():
            return None
        path = self.place(asked)
        try:
            return (read(_answer(path, _question(asked))),)
        # What a reader makes of data that are no such result can be any error.
        except Exception as error:
            warnings.warn(f"{path} is damaged ({error}); it is computed again", stacklevel=3)
            return None

    def named(self, name: str) -> tuple[Any] | None:
        """A result by the name of its file, as the only item of a tuple; None where there is none, or a damaged one."""
        assert self.folder is not None
        try:
            entry = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            return (entry["result"],) if entry["sum"] == _sum(entry["result"]) else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def place(self, asked: Mapping[str, Any]) -> Path:
        """The file of an answer."""
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(_question(asked).encode()).hexdigest()}.json"


def _question(asked: Mapping[str, Any]) -> str:
    return json.dumps({"code": code_digest()} | dict(asked), sort_keys=True)


def _answer(path: Path, question: str) -> Any:
    """The result in a file.

    Raises:
        ValueError, OSError, RecursionError: it holds no answer to this question.
    """
    entry = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entry, dict) or "result" not in entry:
        raise ValueError("it holds no result")
    if json.dumps(entry.get("asked"), sort_keys=True) != question:
        raise ValueError("it answers another question")
    if entry.get("sum") != _sum(entry["result"]):
        raise ValueError("its result was changed after it was computed")
    return entry["result"]


def _sum(result: Any) -> str:
    """A hash of plain data as JSON holds them, in which tuples are lists and keys are text."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(result)), sort_keys=True).encode()).hexdigest()


@cache
def code_digest(package: Path = _PACKAGE) -> str:
    """A hash of the code that computes: a result of other code is no answer."""
    files = [path for path in sorted(package.rglob("*.py")) if path.parts[len(package.parts)] not in _DRAWING]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()

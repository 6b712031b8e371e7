"""Finished parts of a long computation, on disk, so that it goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, final

__all__ = ["Store", "code_digest"]

_PACKAGE = Path(__file__).parents[2]
# What shows numbers, and computes none.
_DRAWING = ("show", "widgets", "cli.py")


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

    def once(self, asked: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """What was computed before for the same question, or is computed now and kept.

        Args:
            asked: all that the result depends on, as plain data; this version of dlens's code is added.
            compute: gives plain data.

        Examples:
            >>> Store().once({"part": "sum"}, lambda: 1 + 1)
            2
        """
        if self.folder is None:
            return compute()
        question = json.dumps({"code": code_digest()} | dict(asked), sort_keys=True)
        path = self.folder / f"{hashlib.sha256(question.encode()).hexdigest()}.json"
        if path.exists() and not self.fresh:
            self.reused.append(path)
            return json.loads(path.read_text(encoding="utf-8"))["result"]
        result = compute()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Written whole or not at all: an interruption must not leave half a file under the final name.
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps({"asked": json.loads(question), "result": result}), encoding="utf-8")
        unfinished.replace(path)
        return result


@cache
def code_digest(package: Path = _PACKAGE) -> str:
    """A hash of the code that computes: a result of other code is no answer."""
    files = [path for path in sorted(package.rglob("*.py")) if path.parts[len(package.parts)] not in _DRAWING]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()

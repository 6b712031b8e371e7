"""The index of a stream, index.json: what was asked, which must be the same to go on, and what there is to read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from dlens.files import write_text
from dlens.ops.base.target import RunKind
from dlens.tracing.planning.streamed import StreamedPoint

__all__ = ["INDEX", "Header", "read_header", "refuse_unlike", "write_header"]

INDEX = "index.json"
_FORMAT = 1


@final
@dataclass(frozen=True)
class Header:
    """What index.json holds.

    Args:
        asked: all that the rows depend on, by name, in short words; whoever goes on must ask the same.
        model, family: names.
        kind: of the runs.
        has_noise: whether the noise of a row is defined.
        n_layers: depth of the model.
        n_steps: planned steps of a run.
        n_prompts: how many prompts there are.
        points: what is kept.
        plan: the operations, as in `record.plan`.
        complete: whether all prompts are through.
    """

    asked: dict[str, str]
    model: str
    family: str
    kind: RunKind
    has_noise: bool
    n_layers: int
    n_steps: int
    n_prompts: int
    points: tuple[StreamedPoint, ...]
    plan: tuple[dict[str, Any], ...]
    complete: bool = False

    @property
    def stream(self) -> str:
        """The name of the stream, which each shard holds."""
        return hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()


def write_header(folder: Path, header: Header) -> None:
    """Write the index, whole or not at all."""
    write_text(folder / INDEX, json.dumps({"format": _FORMAT, **asdict(header)}, indent=1))


def read_header(folder: Path) -> Header:
    """The index of a stream.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or a newer dlens wrote it.
    """
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}; expected a folder written by trace.capture(...).stream; check the path"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != _FORMAT:
            raise ValueError("another format")
        points = tuple(StreamedPoint(one["point"], tuple(one["layers"])) for one in found.pop("points"))
        return Header(**found | {"points": points, "plan": tuple(found["plan"])})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged or by a newer dlens ({error!r}); expected what stream wrote; update dlens, or stream "
            f"again into a new folder"
        ) from error


def refuse_unlike(folder: Path, found: Header, asked: Header) -> None:
    """Refuse to go on with a stream of which something else was asked.

    Raises:
        ValueError: says what differs.
    """
    names = sorted(found.asked.keys() | asked.asked.keys())
    differ = [name for name in names if found.asked.get(name) != asked.asked.get(name)]
    if differ:
        raise ValueError(
            f"{folder} holds a stream of {found.model} with another {', another '.join(differ)}; expected the same, as "
            f"a stream goes on where it ended; give another folder, or ask as before"
        )

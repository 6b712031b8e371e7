"""What record.json holds: its fields and their types, written and read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote

from dlens.ops.base.target import RunKind
from dlens.tracing.records.captured import Captured
from dlens.tracing.records.folder import MEASURES
from dlens.tracing.records.record import Record

__all__ = [
    "FORMAT",
    "PLAIN",
    "CapturedEntry",
    "Header",
    "header_of",
    "measure_file",
    "read_header",
    "refuse_edits",
    "signed",
]

FORMAT = 2
_READ = (1, FORMAT)
PLAIN = ("kind", "model", "family", "n_layers", "text", "n_steps", "planned_steps", "settings", "seconds", "versions")
"""The fields of a record that are in its header as they are."""


class CapturedEntry(TypedDict):
    """The axes of a captured tensor; its values are in the tensors' file."""

    dims: list[str]
    layers: list[int]
    steps: list[int]
    positions: list[int]


class Header(TypedDict):
    """The fields of record.json."""

    format: int
    kind: RunKind
    model: str
    family: str
    n_layers: int
    text: list[str]
    n_steps: int
    planned_steps: int
    settings: dict[str, Any]
    seconds: float
    versions: dict[str, str]
    plan: list[dict[str, Any]]
    notes: list[str]
    unfired: list[str]
    flops: list[int] | None
    captured: dict[str, CapturedEntry]
    # The file of each measure; in format 1 its labels.
    measures: dict[str, str | dict[str, Any]]
    # Older records of either format lack these.
    gradients: NotRequired[dict[str, CapturedEntry]]
    pieces: NotRequired[dict[str, str]]
    saved: NotRequired[str]
    # SHA-256 of each other file, and of this header without its own.
    sums: NotRequired[dict[str, str]]
    own_sum: NotRequired[str]


def measure_file(key: str) -> str:
    """The file of a measure: any text may be its key; a name of a file may not."""
    return f"{MEASURES}/{quote(key, safe='')}.nc"


def header_of(record: Record) -> dict[str, Any]:
    """The header of a record, but for the name of its save; FLOPs are counted if nobody asked for them yet."""
    counted = record.counted()
    return {
        "format": FORMAT,
        **{name: getattr(record, name) for name in PLAIN},
        "plan": list(record.plan),
        "notes": list(record.notes),
        "unfired": list(record.unfired),
        "pieces": {str(token): text for token, text in record.pieces.items()},
        "flops": None if counted is None else [counted.run, counted.plain],
        "captured": _entries(record.captured),
        "gradients": _entries(record.differentiated),
        "measures": {key: measure_file(key) for key in record.measures},
    }


def _entries(kept: Mapping[str, Captured]) -> dict[str, Any]:
    return {
        name: {"dims": one.dims, "layers": one.layers, "steps": one.steps, "positions": one.positions}
        for name, one in kept.items()
    }


def signed(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header with its own sum, by which an edit of it is found."""
    return {**header, "own_sum": _own_sum(header)}


def _own_sum(header: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in header.items() if name != "own_sum"}
    # As it will be read: lists for tuples.
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_header(path: Path) -> Header:
    """The header of a record.

    Raises:
        ValueError: it is damaged, or a newer dlens wrote it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    # Numbers of too many digits are a ValueError, lists in lists in lists a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected what record.save wrote; save it again") from error
    if not isinstance(found, dict) or found.get("format") not in _READ:
        came = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"{path} has format {came!r}; expected {' or '.join(map(str, _READ))}; read it with the dlens that wrote it"
        )
    return _checked(path, found)


def refuse_edits(path: Path) -> None:
    """Refuse a header that is not as it was saved; older ones do not say.

    Raises:
        ValueError: it was changed.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("own_sum", _own_sum(found)) != _own_sum(found):
        raise ValueError(
            f"{path} was changed after it was saved; expected what record.save wrote, to the letter; save the record "
            f"again, and keep words of your own in another file"
        )


def _checked(path: Path, found: dict[str, Any]) -> Header:
    from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

    known = {name: value for name, value in found.items() if name in Header.__annotations__}
    if missing := sorted(Header.__required_keys__ - set(known)):
        raise ValueError(
            f"{path} lacks {', '.join(map(repr, missing))}; expected all that record.save wrote; save the record again"
        )
    try:
        header = check_type(known, Header, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        _check_values(header)
    except (ValueError, TypeCheckError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); expected what record.save wrote; save the record again"
        ) from error
    return header


def _check_values(header: Header) -> None:
    """What types do not say.

    Raises:
        ValueError: something else stands there.
    """
    if not header.get("saved", "0").isalnum():
        raise ValueError(f"saved {header.get('saved')!r:.60}")
    for token in header.get("pieces", {}):
        int(token)
    if header["flops"] is not None and len(header["flops"]) != 2:
        raise ValueError(f"{len(header['flops'])} numbers of FLOPs for 2")
    for key, file in header["measures"].items():
        if isinstance(file, str) != (header["format"] == FORMAT) or isinstance(file, str) and file != measure_file(key):
            raise ValueError(f"measure {key} in {file!r:.60}")
    for name in ("n_layers", "n_steps", "planned_steps"):
        if header[name] < 0:
            raise ValueError(f"{name} {header[name]}")

"""Reads benchmark files: one JSON object a line or a JSON list of them, plain or gzipped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_entries"]


def read_entries(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The entries of a .jsonl or .json file, plain or gzipped; empty lines are left out.

    Args:
        path: the file.
        fields: what every entry must have, name -> type.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or an entry lacks a field.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}; expected a .jsonl, .json or gzipped file; check the path, dlens downloads no benchmark"
        )
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; expected UTF-8 text, gzipped where the name ends in .gz; download it anew"
        ) from error
    # Only line feeds end a line: JSON may hold other line separators as they are.
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty; expected one JSON object a line; give another file")
    if text.lstrip().startswith("["):
        entries = _parsed(str(path), text)
        return [_entry(f"{path}, entry {number}", entry, fields) for number, entry in enumerate(entries, 1)]
    return [_entry(place, _parsed(place, line), fields) for place, line in lines]


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place}: no JSON ({error.msg}); expected one JSON object a line, or a list of them; give another file"
        ) from error


def _entry(place: str, entry: Any, fields: Mapping[str, type]) -> dict[str, Any]:
    wrong = [name for name, kind in fields.items() if not isinstance(entry, dict) or type(entry.get(name)) is not kind]
    if wrong:
        raise ValueError(
            f"{place}: without a usable {', '.join(wrong)}; expected an object with "
            f"{', '.join(f'{name} ({kind.__name__})' for name, kind in fields.items())}; check the named format"
        )
    return entry

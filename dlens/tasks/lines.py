"""Reads benchmark files: one JSON object a line, plain or gzipped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_lines"]


def read_lines(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The entries of a .jsonl or .jsonl.gz file, empty lines left out.

    Args:
        path: the file.
        fields: what every entry must have, name -> type.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or an entry lacks a field.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}; expected a .jsonl or .jsonl.gz file; check the path, dlens downloads no benchmark"
        )
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; expected UTF-8 text, gzipped where the name ends in .gz; download it anew"
        ) from error
    # Only line feeds end a line: JSON may hold other line separators as they are.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty; expected one JSON object a line; give another file")
    return [_entry(path, number, line, fields) for number, line in lines]


def _entry(path: Path, number: int, line: str, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: no JSON ({error.msg}); expected one JSON object a line; give another file"
        ) from error
    wrong = [name for name, kind in fields.items() if not isinstance(entry, dict) or type(entry.get(name)) is not kind]
    if wrong:
        raise ValueError(
            f"{path}, line {number}: without a usable {', '.join(wrong)}; expected an object with "
            f"{', '.join(f'{name} ({kind.__name__})' for name, kind in fields.items())}; check the named format"
        )
    return entry

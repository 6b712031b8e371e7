"""Hashes of what functions and classes do, the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from inspect import getsourcefile, isfunction, unwrap
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["class_digest", "function_digest"]


def function_digest(function: Callable[..., Any]) -> str:
    """A hash of a function's instructions, names and constants; of what it wraps where it is wrapped.

    Examples:
        >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 1) != function_digest(lambda x: x + 2)
        True
    """
    return _hashed(unwrap(function).__code__)  # pyright: ignore


@cache
def _hashed(code: CodeType) -> str:
    constants = [_hashed(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()


def class_digest(kind: type) -> str:
    """A hash of the methods of a class and its bases, and of the files they stand in.

    Files are read as they are now; a class that was typed into a notebook has none, and counts by its methods.
    """
    seen = hashlib.sha256()
    for owner in kind.__mro__[:-1]:
        functions = {name: function_digest(value) for name, value in vars(owner).items() if isfunction(value)}
        seen.update(repr((owner.__qualname__, functions)).encode())
        seen.update(_file(owner))
    return seen.hexdigest()


def _file(owner: type) -> bytes:
    try:
        return Path(getsourcefile(owner) or "").read_bytes()
    except (OSError, TypeError):
        return b""

"""Hashes of what functions, classes and modules of code do, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import sys
import weakref
from collections.abc import Callable, Mapping
from inspect import getsourcefile, isbuiltin, isfunction, ismethod, unwrap
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["class_digest", "code_of", "function_digest", "members_of"]

_DEPTH = 3
_NUMBERS = (bool, int, float, complex, str, bytes, type(None))


def function_digest(function: Callable[..., Any]) -> str:
    """A hash of what a function does by itself: instructions, names, constants, defaults, and what it closes over.

    Of a partial function or a method, of the function within and of what is filled in; of what it wraps, where
    it is wrapped.

    Examples:
        >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 1) != function_digest(lambda x: x + 2)
        True
    """
    if not isfunction(function) or function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return _digest(function)
    code, found = _KNOWN.get(function, (None, ""))
    if code is not function.__code__:
        found = _digest(function)
        _KNOWN[function] = function.__code__, found
    return found


# Plain functions by their instructions, which are all that they are.
_KNOWN: weakref.WeakKeyDictionary[Callable[..., Any], tuple[CodeType, str]] = weakref.WeakKeyDictionary()


def _digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256(repr(_facts(function, 0)).encode()).hexdigest()


def _facts(function: Any, depth: int) -> Any:
    if isinstance(function, functools.partial):
        return _facts(function.func, depth), _plain(function.args, depth), _plain(function.keywords, depth)
    if ismethod(function):
        return _facts(function.__func__, depth)
    if isbuiltin(function):
        return function.__module__, function.__qualname__
    whole = unwrap(function)
    if not isfunction(whole) or depth == _DEPTH:
        return f"{type(function).__module__}.{type(function).__qualname__}"
    held = [cell.cell_contents for cell in whole.__closure__ or () if cell != type(cell)()]
    return _hashed(whole.__code__), *(
        _plain(value, depth + 1) for value in (whole.__defaults__, whole.__kwdefaults__, held)
    )


def _plain(value: Any, depth: int) -> Any:
    """A value as far as it is data or code; anything else by its type."""
    if isinstance(value, _NUMBERS):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(item, depth)) for item in value)
    if isinstance(value, Mapping):
        return [(str(key), _plain(item, depth)) for key, item in value.items()]
    return _facts(value, depth) if callable(value) else type(value).__qualname__


@functools.cache
def _hashed(code: CodeType) -> str:
    constants = [_constant(value) for value in code.co_consts]
    return hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _hashed(value)
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    # The order of a set differs from process to process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def class_digest(kind: type) -> str:
    """A hash of what a class and its bases do: methods, properties, attributes, and the code that they stand among.

    Files are read as they are now, and functions beside the class as they are in this process; a class that was typed
    into a notebook has no file.
    """
    seen = hashlib.sha256()
    for owner in kind.__mro__[:-1]:
        if owner.__module__ in ("abc", "typing"):
            continue
        seen.update(repr((owner.__qualname__, members_of(owner), code_of(owner.__module__))).encode())
        seen.update(_file(owner))
    return seen.hexdigest()


def code_of(module: str) -> Any:
    """What the functions of a loaded module of code do, and its numbers and words; by name."""
    names = vars(sys.modules[module]) if module in sys.modules else {}
    return sorted((name, function_digest(value)) for name, value in list(names.items()) if isfunction(value)) + [
        (name, value) for name, value in sorted(names.items()) if isinstance(value, _NUMBERS) and name[:2] != "__"
    ]


def members_of(owner: type) -> Any:
    """The members of a class by name: functions by what they do, however they are held, and data."""
    found = []
    for name, value in sorted(vars(owner).items()):
        inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        parts = (inner.fget, inner.fset) if isinstance(inner, property) else (inner,)
        if name[:2] != "__" or any(map(isfunction, parts)):
            found.append((name, type(value).__name__, [_plain(part, 0) for part in parts]))
    return found


def _file(owner: type) -> bytes:
    try:
        return Path(getsourcefile(owner) or "").read_bytes()
    except (OSError, TypeError):
        return b""

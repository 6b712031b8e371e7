"""Checks of what users give that every room shares: flags, words, numbers, fields, and how messages quote."""

from __future__ import annotations

import math
import operator
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from dlens.axes import respell

__all__ = [
    "as_flag",
    "as_path",
    "check_fields",
    "finite",
    "plain_fields",
    "quoted",
    "real",
    "refuse",
    "require_word",
    "several",
    "whole",
]

_ARRAYS = (Tensor, np.ndarray, np.generic)


def quoted(value: Any) -> str:
    """What came, in one short line, whatever it is.

    Examples:
        >>> quoted("3"), len(quoted(list(range(1000)))) < 80
        ("'3'", True)
    """
    return " ".join(reprlib.repr(value).split())


def refuse(what: str, value: Any, expected: str, fix: str) -> NoReturn:
    """Say what came, what was expected, and the usual fix.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{what}={quoted(value)}; expected {expected}; {fix}")


def as_flag(value: Any, what: str) -> bool:
    """A flag: True or False, of Python or NumPy, and nothing that only counts as one of them.

    Args:
        value: what a user wrote.
        what: how messages call it.

    Raises:
        ValueError: anything else, such as "no", which counts as true.

    Examples:
        >>> as_flag(np.True_, "infill")
        True
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{what}={quoted(value)}; expected True or False; write {what}=True or {what}=False, unquoted")


def as_path(value: Any, what: str) -> Path:
    """Where a file or folder is: text, or a path of any kind.

    Raises:
        ValueError: something else.

    Examples:
        >>> as_path("runs", "folder").name
        'runs'
    """
    if isinstance(value, (str, os.PathLike)) and "\0" not in str(value):
        with suppress(TypeError):
            return Path(value)
    raise ValueError(f"{what}={quoted(value)}; expected where it is; give its path as text, such as 'runs/one'")


def require_word(what: str, value: Any, allowed: Iterable[str], expected: str | None = None) -> None:
    """Refuse what is none of some words.

    Args:
        what: how messages call it.
        value: what a user wrote.
        allowed: the words.
        expected: what messages list; "one of" the words by default.

    Raises:
        ValueError: another word, or no word at all.

    Examples:
        >>> require_word("part", "attn", ("block", "attn", "mlp"))
    """
    known = tuple(allowed)
    if not isinstance(value, str) or value not in known:
        expected = f"one of {', '.join(known)}" if expected is None else expected
        raise ValueError(f"{what}={quoted(value)}; expected {expected}; {respell(value, known)}")


def whole(value: Any) -> int | None:
    """A whole number of any integer type as an int; None for a boolean, a float, text, several, and all else.

    Examples:
        >>> import torch
        >>> whole(torch.tensor(3)), whole(3.0), whole(True)
        (3, None, None)
    """
    with suppress(TypeError, RuntimeError):
        if isinstance(value, _ARRAYS):
            value = value.item() if value.ndim == 0 else None
        return None if isinstance(value, bool) else operator.index(value)
    return None


def real(value: Any) -> float | None:
    """A real number of any type as a float, infinite ones and NaN too; None for booleans, text, several, and all else.

    Examples:
        >>> real(np.float32(0.5)), real([1.0]), real(1j), real("1")
        (0.5, None, None, None)
    """
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        value = value.item() if isinstance(value, _ARRAYS) else value
        return None if isinstance(value, (bool, str, bytes, complex)) else float(value)
    return None


def finite(value: Any) -> float | None:
    """The same of a finite number; None for infinity and NaN, too."""
    number = real(value)
    return number if number is not None and math.isfinite(number) else None


def plain_fields(settings: Any) -> None:
    """Let a frozen dataclass hold numbers and flags of Python where it was given those of NumPy or torch.

    Its repr then names it the same whatever it was made from.
    """
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, _ARRAYS) and math.prod(value.shape) == 1:
            object.__setattr__(settings, each.name, value.item())


def several(value: Any) -> bool:
    """Whether it is some values in an order: a tuple, a list, an array; not text, and not a mapping.

    Examples:
        >>> several([]), several(np.zeros(2)), several("ab"), several({}), several(3)
        (True, True, False, False, False)
    """
    if isinstance(value, _ARRAYS):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


@dataclass(frozen=True)
class _Form:
    """What a field may hold, in words, and whether a value is so."""

    words: str
    fits: Callable[[Any], bool]


_FORMS = {
    "str": _Form("text", lambda value: isinstance(value, str)),
    "int": _Form("a whole number", lambda value: whole(value) is not None),
    "float": _Form("a number", lambda value: real(value) is not None),
    "bool": _Form("True or False", lambda value: isinstance(value, (bool, np.bool_))),
}


def check_fields(settings: Any, fix: str, *classes: type) -> None:
    """Refuse a dataclass that was given what its fields say that they do not hold.

    Plain fields are looked at: text, numbers, flags, several of them, mappings, functions; None where they say so.

    Args:
        settings: a dataclass.
        fix: how messages end.
        classes: of other objects that fields hold, so that these are looked at, too.

    Raises:
        ValueError: names the field.

    Examples:
        >>> @dataclass
        ... class Size:
        ...     width: int
        ...     names: tuple[str, ...] = ()
        >>> check_fields(Size(3, ["a"]), "give its width")
        >>> check_fields(Size("3"), "give its width")
        Traceback (most recent call last):
        ValueError: width='3' of Size; expected a whole number; give its width
    """
    for each in fields(settings):
        value, form = getattr(settings, each.name), _form(str(each.type), classes)
        if form is not None and not form.fits(value):
            raise ValueError(f"{each.name}={quoted(value)} of {type(settings).__name__}; expected {form.words}; {fix}")


@cache
def _form(annotation: str, classes: tuple[type, ...] = ()) -> _Form | None:
    """What an annotation says; None where it is not plain."""
    if annotation.endswith(" | None"):
        form = _form(annotation.removesuffix(" | None"), classes)
        return None if form is None else _Form(f"{form.words}, or None", _or_none(form.fits))
    if mapped := re.fullmatch(r"(?:Mapping|dict)\[\w+, (.+)\]", annotation):
        form = _form(mapped[1], classes)
        return _Form("a mapping" + ("" if form is None else f" to {form.words}"), _each_value(form))
    if annotation.startswith("Callable["):
        return _Form("a function", callable)
    if listed := re.fullmatch(r"(?:tuple|Sequence)\[(.+?)(?:, \.\.\.)?\]", annotation):
        form = _form(listed[1], classes)
        return _Form("a list or tuple" + ("" if form is None else f", each {form.words}"), _each(form))
    own = next((each for each in classes if each.__name__ == annotation.rpartition(".")[2]), None)
    return _FORMS.get(annotation) if own is None else _Form(own.__name__, lambda value: isinstance(value, own))


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _each_value(form: _Form | None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and (form is None or all(map(form.fits, value.values())))


def _each(form: _Form | None) -> Callable[[Any], bool]:
    return lambda values: several(values) and (form is None or all(map(form.fits, values)))

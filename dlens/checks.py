"""Checks of what users give that every room shares: flags, words, numbers, and how a message quotes what came."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dlens.axes import respell

__all__ = ["as_flag", "as_path", "finite", "plain_fields", "quoted", "real", "require_word", "whole"]

_ARRAYS = (Tensor, np.ndarray, np.generic)


def quoted(value: Any) -> str:
    """What came, in one short line, whatever it is.

    Examples:
        >>> quoted("3"), len(quoted(list(range(1000)))) < 80
        ("'3'", True)
    """
    return " ".join(reprlib.repr(value).split())


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

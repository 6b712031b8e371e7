"""Checks of a sampler's settings, each on its own."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

__all__ = [
    "Number",
    "require_at_least",
    "require_between",
    "require_given",
    "require_one_of",
    "require_whole",
]

# Spelt out because the type checks under test do not take an int for a float.
Number = float | int


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is none of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(allowed)}; check the spelling")


def require_given(name: str, value: Number, meaning: str) -> None:
    """Refuse None, where a setting has no other meaning for it."""
    if value is None:
        raise ValueError(f"{name}=None; expected a number; {meaning}")


def require_whole(name: str, value: int | None, least: int, meaning: str) -> None:
    """Refuse what is no whole number, or below the least; None passes."""
    whole = None
    if not isinstance(value, bool):
        with suppress(TypeError):
            whole = operator.index(cast(int, value))
    if value is not None and whole is None:
        raise ValueError(f"{name}={value!r}; expected a whole number, {least} or more; {meaning}")
    require_at_least(name, whole, least, meaning)


def require_at_least(name: str, value: Number | None, least: Number, meaning: str) -> None:
    """Refuse what is no finite number, or below the least; None passes."""
    if value is not None and not (_finite(value) and value >= least):
        finite = ", and finite" if value == math.inf else ""
        raise ValueError(f"{name}={value!r}; expected {least:g} or more{finite}; {meaning}")


def require_between(name: str, value: Number | None, low: Number, high: Number, meaning: str) -> None:
    """Refuse what is no number, or outside low < value <= high; None passes."""
    if value is not None and not (_finite(value) and low < value <= high):
        raise ValueError(f"{name}={value!r}; expected more than {low:g} and at most {high:g}; {meaning}")


def _finite(value: Any) -> bool:
    """Whether something is one finite number; text and booleans are none."""
    if not isinstance(value, (bool, str, bytes)):
        with suppress(TypeError, ValueError, OverflowError):
            return math.isfinite(value)
    return False

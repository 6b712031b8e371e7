"""Checks of a sampler's settings, each on its own."""

from __future__ import annotations

import math

from dlens.checks import finite, quoted, real, whole

__all__ = ["Number", "require_at_least", "require_between", "require_given", "require_whole"]

# Spelt out because the type checks under test do not take an int for a float.
Number = float | int

# Far more than any setting means, and less than where the arithmetic of torch ends.
_MOST = 10**9


def require_given(name: str, value: Number, meaning: str) -> None:
    """Refuse None, where a setting has no other meaning for it."""
    if value is None:
        raise ValueError(f"{name}=None; expected a number; {meaning}")


def require_whole(name: str, value: int | None, least: int, meaning: str) -> None:
    """Refuse what is no whole number, or below the least; None passes."""
    if value is not None and whole(value) is None:
        raise ValueError(f"{name}={quoted(value)}; expected a whole number, {least} or more; {meaning}")
    require_at_least(name, value, least, meaning)


def require_at_least(name: str, value: Number | None, least: Number, meaning: str) -> None:
    """Refuse what is no finite number, or below the least; None passes."""
    if value is None:
        return
    number = finite(value)
    if number is None or number < least:
        bound = ", and finite" if real(value) == math.inf else ""
        raise ValueError(f"{name}={quoted(value)}; expected {least:g} or more{bound}; {meaning}")
    if number > _MOST:
        raise ValueError(f"{name}={quoted(value)}; expected {least:g} to {_MOST}; {meaning}")


def require_between(name: str, value: Number | None, low: Number, high: Number, meaning: str) -> None:
    """Refuse what is no number, or outside low < value <= high; None passes."""
    number = None if value is None else finite(value)
    if value is not None and (number is None or not low < number <= high):
        raise ValueError(f"{name}={quoted(value)}; expected more than {low:g} and at most {high:g}; {meaning}")

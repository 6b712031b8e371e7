"""Checks of a sampler's settings, each on its own."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Number", "require_at_least", "require_between", "require_one_of"]

# Spelt out because the type checks under test do not take an int for a float.
Number = float | int


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(allowed)}; check the spelling")


def require_at_least(name: str, value: Number | None, least: Number, meaning: str) -> None:
    """Refuse a number below the least; None passes."""
    if value is not None and not value >= least:
        raise ValueError(f"{name}={value}; expected {least:g} or more; {meaning}")


def require_between(name: str, value: Number | None, low: Number, high: Number, meaning: str) -> None:
    """Refuse a number outside low < value <= high; None passes."""
    if value is not None and not low < value <= high:
        raise ValueError(f"{name}={value}; expected more than {low:g} and at most {high:g}; {meaning}")

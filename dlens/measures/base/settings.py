"""Read the settings that users give to measures: whole numbers, lists of them, and numbers above a bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlens.checks import finite, quoted, whole

__all__ = ["require_above", "require_count", "whole_numbers"]


def whole_numbers(name: str, numbers: Any) -> tuple[int, ...]:
    """Channels or layers: a list of them, or one alone.

    Raises:
        ValueError: something else, or a mapping, of which only the keys would count.

    Examples:
        >>> whole_numbers("drop", [3, 5]), whole_numbers("drop", 3)
        ((3, 5), (3,))
    """
    single = isinstance(numbers, (str, bytes, Mapping)) or not isinstance(numbers, Iterable)
    alone = single or whole(numbers) is not None
    found = [whole(number) for number in ([numbers] if alone else numbers)]
    kept = tuple(number for number in found if number is not None)
    if len(kept) < len(found):
        raise ValueError(f"{name}={quoted(numbers)}; expected whole numbers; give a list of ints, such as [3, 5]")
    return kept


def require_count(name: str, number: Any, meaning: str, give: int, most: int | None = None) -> None:
    """Refuse what is no whole number of at least 1, and of at most `most`.

    Raises:
        ValueError: says what the number means, and a usual one.
    """
    count = whole(number)
    if count is None or count < 1:
        kind = "a whole number, at least 1" if count is None else "at least 1"
        meant = meaning and f", {meaning}"
        raise ValueError(f"{name}={quoted(number)}; expected {kind}{meant}; give for example {give}")
    if most is not None and count > most:
        raise ValueError(f"{name}={quoted(number)}; expected at most {most}; give for example {give}")


def require_above(name: str, number: Any, least: float, expected: str, give: float) -> None:
    """Refuse what is no finite number above a bound.

    Raises:
        ValueError: says what was expected, and a usual number.
    """
    value = finite(number)
    if value is None or value <= least:
        raise ValueError(f"{name}={quoted(number)}; expected {expected}; give for example {give:g}")

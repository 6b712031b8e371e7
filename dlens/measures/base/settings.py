"""Read the settings that users give to measures: whole numbers, lists of them, and numbers above a bound."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

__all__ = ["require_above", "require_count", "whole_numbers"]


def whole_numbers(name: str, numbers: Any) -> tuple[int, ...]:
    """Channels or layers: a list of them, or one alone.

    Raises:
        ValueError: something else.

    Examples:
        >>> whole_numbers("drop", [3, 5]), whole_numbers("drop", 3)
        ((3, 5), (3,))
    """
    alone = _whole(numbers) is not None or isinstance(numbers, (str, bytes)) or not isinstance(numbers, Iterable)
    found = [_whole(number) for number in ([numbers] if alone else numbers)]
    whole = tuple(number for number in found if number is not None)
    if len(whole) < len(found):
        raise ValueError(f"{name}={numbers!r}; expected whole numbers; give a list of ints, such as [3, 5]")
    return whole


def require_count(name: str, number: Any, meaning: str, give: int, most: int | None = None) -> None:
    """Refuse what is no whole number of at least 1, and of at most `most`.

    Raises:
        ValueError: says what the number means, and a usual one.
    """
    whole = _whole(number)
    if whole is None or whole < 1:
        kind = "a whole number, at least 1" if whole is None else "at least 1"
        raise ValueError(f"{name}={number!r}; expected {kind}{meaning and f', {meaning}'}; give for example {give}")
    if most is not None and whole > most:
        raise ValueError(f"{name}={number!r}; expected at most {most}; give for example {give}")


def require_above(name: str, number: Any, least: float, expected: str, give: float) -> None:
    """Refuse what is no finite number above a bound.

    Raises:
        ValueError: says what was expected, and a usual number.
    """
    above = False
    if not isinstance(number, (bool, str, bytes)):
        with suppress(TypeError, ValueError, OverflowError):
            above = math.isfinite(number) and number > least
    if not above:
        raise ValueError(f"{name}={number!r}; expected {expected}; give for example {give:g}")


def _whole(number: Any) -> int | None:
    if isinstance(number, bool):
        return None
    with suppress(TypeError):
        return operator.index(number)
    return None

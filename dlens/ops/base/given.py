"""Read the numbers that users write: whole numbers, lists of them, slices, factors and arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

__all__ = ["Indices", "as_index", "as_indices", "as_ints", "as_number", "as_slice", "as_tensor"]

Indices = SupportsIndex | slice | Iterable[SupportsIndex] | None


def as_index(number: Any, what: str, fix: str = "pass an int, such as 5") -> int:
    """A whole number of any integer type as an int.

    Args:
        number: what a user wrote.
        what: how messages call it.
        fix: what they advise.

    Raises:
        ValueError: a bool, a float, text, or anything else.

    Examples:
        >>> as_index(torch.tensor(3), "layer")
        3
    """
    value: Any = number.item() if isinstance(number, Tensor) and number.ndim == 0 else number
    if not isinstance(value, (bool, Tensor)):
        with suppress(TypeError):
            return operator.index(value)
    raise ValueError(f"{what} {number!r}; expected a whole number; {fix}")


def as_ints(numbers: Any, what: str) -> tuple[int, ...]:
    """One whole number or several, as ints.

    Examples:
        >>> as_ints(8, "layer"), as_ints(range(3), "layer")
        ((8,), (0, 1, 2))
    """
    try:
        several = [numbers] if isinstance(numbers, (str, bytes)) else list(numbers)
    except TypeError:
        several = [numbers]
    booleans = any(isinstance(n, (bool, np.bool_)) or isinstance(n, Tensor) and n.dtype == torch.bool for n in several)
    fix = "pass ints, such as 5 or [5, 9]"
    if booleans:
        fix = f"pass the numbers of the {what}s, such as [5, 9], not booleans"
    return tuple(as_index(number, what, fix) for number in several)


def as_slice(ends: slice, what: str) -> slice:
    """A slice with whole numbers for ends.

    Raises:
        ValueError: other ends, or a step of 0.
    """
    given = (None if end is None else as_index(end, what) for end in (ends.start, ends.stop, ends.step))
    start, stop, step = given
    if step == 0:
        raise ValueError(f"{what} {ends!r}; expected a slice that moves on; leave its step out, or pass 1")
    return slice(start, stop, step)


def as_indices(numbers: Indices, what: str, count: int) -> tuple[int, ...] | None:
    """Which of `count` things a user names; None, which is all of them, stays None.

    Raises:
        ValueError: none is named, or something that is no whole number.

    Examples:
        >>> as_indices(slice(-2, None), "layer", 16)
        (14, 15)
    """
    if numbers is None:
        return None
    named = range(count)[as_slice(numbers, what)] if isinstance(numbers, slice) else as_ints(numbers, what)
    if not named:
        raise ValueError(f"got no {what}s; expected at least one of {count}; name some, or pass None for all")
    return tuple(named)


def as_number(number: Any, what: str) -> float:
    """A number of any type as a float.

    Raises:
        ValueError: a bool, text, or several numbers.
    """
    if not isinstance(number, (bool, str, bytes)):
        with suppress(TypeError, ValueError, RuntimeError):
            return float(number)
    raise ValueError(f"{what}={number!r}; expected a number; pass a float")


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of its own from a tensor, an array, a list or a number.

    Raises:
        ValueError: nothing that holds numbers.
    """
    with suppress(TypeError, ValueError, RuntimeError):
        return torch.as_tensor(values).detach().clone()
    raise ValueError(
        f"{what} is a {type(values).__name__} that holds no numbers of one shape; expected a tensor; "
        f"pass a tensor, an array, or a list of numbers"
    )

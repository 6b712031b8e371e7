"""Read the numbers that users write: whole numbers, lists of them, slices, factors, seeds and arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from dlens.axes import respell
from dlens.checks import quoted, real, whole

__all__ = [
    "Indices",
    "as_count",
    "as_dtype",
    "as_index",
    "as_indices",
    "as_ints",
    "as_number",
    "as_seed",
    "as_slice",
    "as_tensor",
]

Indices = SupportsIndex | slice | Iterable[SupportsIndex] | None

# What both take that draw for dlens: numpy no negative ones, torch none above.
_SEEDS = 2**64
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


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
    value = whole(number)
    if value is None:
        raise ValueError(f"{what} {quoted(number)}; expected a whole number; {fix}")
    return value


def as_count(number: Any, what: str) -> int:
    """A whole number of at least 1.

    Raises:
        ValueError: another one, or something else.

    Examples:
        >>> as_count(8, "batch_size")
        8
    """
    count = as_index(number, what, "give for example 8")
    if count < 1:
        raise ValueError(f"{what}={count}; expected at least 1; give for example 8")
    return count


def as_seed(seed: Any) -> int:
    """A seed that every source of random numbers takes.

    Raises:
        ValueError: not a whole number, below 0, or above 2**64 - 1.

    Examples:
        >>> as_seed(3)
        3
    """
    number = as_index(seed, "seed")
    if not 0 <= number < _SEEDS:
        raise ValueError(f"seed={number}; expected 0 to {_SEEDS - 1}; give for example 0")
    return number


def as_ints(numbers: Any, what: str) -> tuple[int, ...]:
    """One whole number or several, as ints.

    Raises:
        ValueError: something else, or a mapping, of which only the keys would count.

    Examples:
        >>> as_ints(8, "layer"), as_ints(range(3), "layer")
        ((8,), (0, 1, 2))
    """
    if isinstance(numbers, Mapping):
        raise ValueError(
            f"{what}s {quoted(numbers)}; expected whole numbers, and no mapping, whose values would not count; "
            f"pass a list of ints, such as [5, 9]"
        )
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


def as_dtype(dtype: Any) -> torch.dtype | None:
    """A type of real numbers, by its name or as torch has it; None stays None.

    Raises:
        ValueError: another one.

    Examples:
        >>> as_dtype("bfloat16"), as_dtype(torch.float16)
        (torch.bfloat16, torch.float16)
    """
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in _DTYPES.values():
        raise ValueError(f"dtype={quoted(dtype)}; expected one of {', '.join(_DTYPES)}; {respell(dtype, _DTYPES)}")
    return found


def as_number(number: Any, what: str) -> float:
    """A finite number of any type as a float.

    Raises:
        ValueError: a bool, text, several numbers, NaN or infinity.
    """
    value = real(number)
    if value is None or not math.isfinite(value):
        kind = "a number" if value is None else "a finite number"
        raise ValueError(f"{what}={quoted(number)}; expected {kind}; pass a float")
    return value


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of its own from a tensor, an array, a list or a number.

    Raises:
        ValueError: nothing that holds real numbers, or NaN or infinity among them.
    """
    kept: Tensor | None = None
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        kept = torch.as_tensor(values).detach().clone()
    if kept is not None and (kept.dtype == torch.bool or kept.is_complex()):
        kept = None
    if kept is not None and not bool(kept.isfinite().all()):
        raise ValueError(
            f"{what} holds {int((~kept.isfinite()).sum())} numbers that are NaN or infinite; expected finite ones; "
            f"look where they come from, or replace them with torch.nan_to_num"
        )
    if kept is not None:
        return kept
    raise ValueError(
        f"{what} is a {type(values).__name__} that holds no real numbers of one shape; expected a tensor; "
        f"pass a tensor, an array, or a list of numbers"
    )

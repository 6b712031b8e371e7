"""The type checker of the tests: beartype, with an int taken wherever a float is asked for."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from beartype import BeartypeConf, beartype

__all__ = ["check"]

_CHECK: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))
# By the code of a function, what was made of each of its annotations.
_MADE: dict[Any, list[tuple[dict[str, Any], Callable[..., Any]]]] = {}


def check(function: FunctionType) -> Callable[..., Any]:
    """A function that checks types, made when it is first called.

    jaxtyping asks for two of them for each function of dlens, and for each function within one whenever the outer one
    is called. They take what that function takes and do nothing, so those of equal code and annotations are one.
    """
    made: list[Callable[..., Any]] = []

    def checked(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(_made(function))
        return made[0](*args, **kwargs)

    return checked


def _made(function: FunctionType) -> Callable[..., Any]:
    known = _MADE.setdefault((function.__module__, function.__qualname__, function.__code__), [])
    for wanted, made in known:
        if wanted == function.__annotations__:
            return made
    known.append((function.__annotations__, _CHECK(function)))
    return known[-1][1]

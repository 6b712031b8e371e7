"""The type checker of the tests: shapes by jaxtyping and types by beartype, in every function of dlens.

It finds what jaxtyping's own decorator finds, in a fraction of the time. That binds the arguments of every call, checks
them twice, and makes two functions for each function within one whenever the outer one is called. Here what checks a
function is made when it is first called, once for all functions of its code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from types import CodeType
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, config, jaxtyped

__all__ = ["checked"]

Checks = tuple[Callable[..., Any], Callable[[Any], Any], bool]
"""What checks the arguments, what checks the result, and whether either has a shape."""

# An int is taken wherever a float is asked for.
_BEARTYPE: Any = beartype(conf=BeartypeConf(is_pep484_tower=True))
# By the code of a function, which is kept, so that no other gets its id.
_MADE: dict[int, tuple[CodeType, dict[str, Any], Checks]] = {}


def checked(*, typechecker: Any) -> Callable[[Any], Any]:
    """In place of `jaxtyping.jaxtyped`, as jaxtyping's import hook writes it above every function and class.

    Args:
        typechecker: what the hook was installed with; it is not asked.

    Returns:
        A decorator, of a function or of a class; of a dataclass it checks what one is made of.
    """
    return _decorated


def _decorated(given: Any) -> Any:
    if not inspect.isclass(given):
        return _checking(given)
    made = vars(given).get("__init__")
    if is_dataclass(given) and inspect.isfunction(made) and not hasattr(made, "__wrapped__"):
        given.__init__ = _checking(made)
    return given


def _checking(function: Callable[..., Any]) -> Callable[..., Any]:
    checks: Checks | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checks
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        if checks is None:
            checks = _checks(function)
        arguments, result, shaped = checks
        if not shaped:
            arguments(*args, **kwargs)
            return result(function(*args, **kwargs))
        with jaxtyped("context"):  # pyright: ignore
            arguments(*args, **kwargs)
            return result(function(*args, **kwargs))

    return call


def _checks(function: Callable[..., Any]) -> Checks:
    code, annotations, made = _MADE.get(id(function.__code__), (None, None, None))
    if made is None or annotations != function.__annotations__:
        made = _make(function)
        _MADE[id(function.__code__)] = (function.__code__, function.__annotations__, made)
    return made


def _make(function: Callable[..., Any]) -> Checks:
    hints = {name: _hint(value, function.__globals__) for name, value in function.__annotations__.items()}
    returned = hints.pop("return", Any)
    shaped = any(map(_shaped, (*hints.values(), returned)))
    return _arguments(function, hints), _result(function, returned), shaped


def _hint(annotation: Any, names: dict[str, Any]) -> Any:
    """What an annotation says; anything where it names what only a function knows."""

    def reader(value: Any) -> None: ...

    reader.__annotations__ = {"value": annotation}
    try:
        return get_type_hints(reader, names, include_extras=True)["value"]
    except Exception:
        return Any


def _shaped(hint: Any) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_shaped, get_args(hint)))


class _Source:
    """Stands in a signature for a value, where it is written as source."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return self.source


def _arguments(function: Callable[..., Any], hints: dict[str, Any]) -> Callable[..., Any]:
    """A function of the same arguments that does nothing but check them."""
    signature = inspect.signature(function)
    defaults = {name: each.default for name, each in signature.parameters.items()}
    parameters = [
        each.replace(
            annotation=_Source(f"hints[{name!r}]") if name in hints else each.empty,
            default=each.empty if each.default is each.empty else _Source(f"defaults[{name!r}]"),
        )
        for name, each in signature.parameters.items()
    ]
    written = signature.replace(parameters=parameters, return_annotation=signature.empty)
    scope: dict[str, Any] = {"hints": hints, "defaults": defaults}
    exec(f"def {function.__name__}{written}: ...", scope)
    return _named(scope[function.__name__], function)


def _result(function: Callable[..., Any], hint: Any) -> Callable[[Any], Any]:
    """A function that gives back what it gets, and checks it."""

    def result(value):
        return value

    result.__annotations__ = {"return": hint}
    return _named(result, function)


def _named(check: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    for name in ("__module__", "__name__", "__qualname__"):
        setattr(check, name, getattr(function, name))
    return _BEARTYPE(check)


# What stands around a function is a library's to those that read what functions do: they look through it.
__name__ = "jaxtyping"

"""Hashes of what values are and what functions and classes do, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Mapping
from copyreg import dispatch_table
from dataclasses import dataclass, field
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, final
from uuid import uuid4

from dlens.named import instructions, is_library, library, named, source_of, strangers

__all__ = ["Reader", "class_digest", "function_digest", "unlike", "value_digest"]

_PLAIN = frozenset((bool, int, float, complex, str, type(None), type(Ellipsis), type(NotImplemented)))
# What changes nothing of what code computes, and cannot be read: it waits, or writes a log.
_IDLE = ("logging.Logger", "_thread.lock", "_thread.RLock")
# What Python and transformers keep on a class for themselves.
_KEPT = ("_abc_impl", "_can_set_attn_implementation_cached_value")
_FUNCTIONS = (FunctionType, property, classmethod, staticmethod)


def function_digest(function: Callable[..., Any]) -> str:
    """A hash of what a function does: its instructions, defaults, what it closes over, and what its code names.

    Functions, classes and values that it names are read in turn, up to those of libraries, which stand for themselves;
    where a library wraps a function, it is the function within.

    Examples:
        >>> import textwrap
        >>> from functools import lru_cache
        >>> function_digest(len) == function_digest(len) != function_digest(max)
        True
        >>> function_digest(lru_cache(textwrap.dedent)) == function_digest(textwrap.dedent)
        True
    """
    return Reader().read(function)


def class_digest(kind: type) -> str:
    """A hash of what a class and its bases do, and of the files that they stand in, as these are now."""
    files = [source_of(owner.__module__) for owner in kind.__mro__ if not is_library(owner.__module__)]
    return hashlib.sha256(b"\0".join([Reader().read(kind).encode(), *files])).hexdigest()


def value_digest(value: Any) -> str:
    """A hash of a value by its content; of what cannot be read, such as an open file, it is never the same.

    Examples:
        >>> from fractions import Fraction
        >>> value_digest([Fraction(1, 2)]) == value_digest([Fraction(2, 4)]) != value_digest([Fraction(1, 3)])
        True
        >>> numbers = (number for number in (1, 2))
        >>> value_digest(numbers) == value_digest(numbers)
        False
    """
    return Reader().read(value)


def content(tensor: Any) -> Any:
    """A tensor's type, shape and bytes."""
    words = tensor.detach().cpu().contiguous().reshape(-1).view(sys.modules["torch"].uint8)
    return tuple(tensor.shape), str(tensor.dtype), hashlib.sha256(words.numpy().tobytes()).hexdigest()


@final
@dataclass(frozen=True)
class Reader:
    """Reads values, and keeps what it read as long as it lives.

    Args:
        tensor: what there is to say of a tensor.
        instead: what is read in the place of a value; most values stand for themselves.
    """

    tensor: Callable[[Any], Any] = content
    instead: Callable[[Any], Any] = lambda value: value
    # By id; the values are held too, so that no id is given to another.
    _known: dict[int, tuple[Any, str]] = field(default_factory=dict)
    _open: list[int] = field(default_factory=list)
    _libraries: dict[str, str] = field(default_factory=dict)

    def read(self, value: Any) -> str:
        """A value in a few words: the same for the same content."""
        kind = type(value)
        if kind in _PLAIN:
            return repr(value)
        if kind is bytes:
            return hashlib.sha256(value).hexdigest()
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:
            return f"within {len(self._open) - self._open.index(id(value))}"
        depth = len(self._open)
        self._open.append(id(value))
        try:
            other = _within(self.instead(value))
            found = _hashed(self._facts(value)) if other is value else self.read(other)
        except RecursionError:
            if depth:
                raise
            return unlike()
        finally:
            del self._open[depth:]
        self._known[id(value)] = value, found
        return found

    def _facts(self, value: Any) -> Any:
        kind = type(value)
        if kind in _FACTS:
            return kind.__name__, _FACTS[kind](self, value)
        if isinstance(value, type):
            return self._class(value)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _name(kind), self.tensor(value)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """Any other object as it would be pickled: its class, what that is called with, and its state."""
        kind = type(value)
        if _name(kind) in _IDLE:
            return _name(kind)
        try:
            made = dispatch_table[kind](value) if kind in dispatch_table else value.__reduce_ex__(2)
        # Whatever an object raises, it cannot be read.
        except Exception:
            return unlike()
        if isinstance(made, str):
            return made, self.read(kind)
        function, arguments, *rest = made
        state, items, pairs = (*rest, None, None, None)[:3]
        return (
            *(self.read(kind), self.read(function), self.read(list(arguments)), self._state(state)),
            *(self.read(list(kept)) if kept is not None else None for kept in (items, pairs)),
        )

    def _state(self, state: Any) -> Any:
        if type(state) is tuple:
            return [self._state(part) for part in state]
        return self.named_values(state) if type(state) is dict else self.read(state)

    def named_values(self, values: Mapping[Any, Any]) -> Any:
        """Values by their names, in whatever order they were set."""
        return sorted((str(name), self.read(value)) for name, value in list(values.items()))

    def _items(self, value: Any) -> Any:
        return [self.read(item) for item in value]

    def _set(self, value: Any) -> Any:
        return sorted(self._items(value))

    def _mapping(self, value: Any) -> Any:
        return [(self.read(key), self.read(item)) for key, item in list(value.items())]

    def _cell(self, cell: CellType) -> Any:
        return self.read(cell.cell_contents) if cell != CellType() else "empty"

    def _function(self, function: Any) -> Any:
        module = function.__globals__.get("__name__", "")
        if is_library(module):
            return library(module), function.__qualname__, self._strangers(module)
        cells = function.__closure__ or ()
        held = [self.read(value) for value in (function.__defaults__, function.__kwdefaults__, *cells)]
        return instructions(function.__code__), held, [(name, self.read(value)) for name, value in named(function)]

    def _strangers(self, module: str) -> Any:
        """What somebody put into a module of a library in the place of its own functions."""
        if module not in self._libraries:
            self._libraries[module] = ""
            held = sys.modules.get(module)
            self._libraries[module] = "" if held is None else self.read(strangers(held))
        return self._libraries[module]

    def _method(self, method: Any) -> Any:
        return self.read(method.__func__), self.read(method.__self__)

    def _builtin(self, function: Any) -> Any:
        owner = function.__self__
        of = None if owner is None or isinstance(owner, ModuleType) else self.read(owner)
        return function.__module__, function.__qualname__, of

    def _descriptor(self, held: Any) -> Any:
        return held.__objclass__.__qualname__, held.__name__

    def _module(self, module: ModuleType) -> Any:
        name = module.__name__
        if is_library(name):
            return library(name)
        return name, self.named_values({key: value for key, value in vars(module).items() if key[:2] != "__"})

    def _class(self, kind: type) -> Any:
        if is_library(kind.__module__):
            others = [pair for owner in kind.__mro__ for pair in strangers(owner)]
            return library(kind.__module__), kind.__qualname__, [(name, self.read(value)) for name, value in others]
        bases = [self.read(base) for base in kind.__bases__]
        return kind.__qualname__, bases, [(name, self._member(value)) for name, value in members(kind)]

    def _member(self, value: Any) -> Any:
        kind = type(value)
        if kind in (staticmethod, classmethod):
            return kind.__name__, self.read(value.__func__)
        if kind is property:
            return kind.__name__, self._items((value.fget, value.fset, value.fdel))
        return self.read(value.func) if kind is functools.cached_property else self.read(value)


def members(kind: type) -> list[tuple[str, Any]]:
    """The members of a class that somebody wrote: its functions, however they are held, and its data."""
    return [
        (name, value)
        for name, value in sorted(vars(kind).items())
        if name not in _KEPT
        and (name[:2] != "__" or type(value) in (FunctionType, property, classmethod, staticmethod))
    ]


_FACTS: dict[type, Callable[[Reader, Any], Any]] = {
    list: Reader._items,
    tuple: Reader._items,
    set: Reader._set,
    frozenset: Reader._set,
    dict: Reader._mapping,
    MappingProxyType: Reader._mapping,
    CellType: Reader._cell,
    FunctionType: Reader._function,
    MethodType: Reader._method,
    BuiltinFunctionType: Reader._builtin,
    BuiltinMethodType: Reader._builtin,
    ModuleType: Reader._module,
    GetSetDescriptorType: Reader._descriptor,
    MemberDescriptorType: Reader._descriptor,
}


def _within(value: Any) -> Any:
    """What a library wraps, such as a function with a cache."""
    if type(value) is MethodType:
        return value
    module = value.__globals__.get("__name__", "") if type(value) is FunctionType else type(value).__module__
    inner = getattr(value, "__dict__", {}).get("__wrapped__")
    return _within(inner) if callable(inner) and is_library(module) else value


def _hashed(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def unlike() -> str:
    """Words that were never said before, in any process: nothing is known of what they stand for."""
    return f"unlike {uuid4()}"

"""What the code of a function names: values of its module, what it imports; and what code is a library's."""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from inspect import ismodule
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["instructions", "is_library", "library", "named", "strangers"]

# Installed or not, these are read as a user's own code is: a task's, and what a model computes.
_READ = ("dlens.tasks", "transformers.models")
_NAMED = ("dlens", "transformers.models.auto")
# Records and stored parts hold the versions of these; what was pickled under one may be read under another.
_VERSIONED = ("dlens", "numpy", "torch", "transformers")
_PATHS = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_INSTALLED = tuple(sorted({*_PATHS, *site.getsitepackages(), site.getusersitepackages()}))
_IMPORT = dis.opmap["IMPORT_NAME"]


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module is the standard library's or was installed: then its name and version say what it does.

    Examples:
        >>> is_library("json.decoder"), is_library("torch.nn"), is_library("dlens.tasks.task"), is_library("__main__")
        (True, True, False, False)
    """
    within = [name for name in (*_READ, *_NAMED) if f"{module}.".startswith(f"{name}.")]
    if within:
        return max(within, key=len) in _NAMED
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top in ("__main__", "__mp_main__"):
        return False
    spec = None
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(place.startswith(_INSTALLED) or _beside_others(Path(place)) for place in places)


def _beside_others(place: Path) -> bool:
    """Whether a package stands in a folder that packages were installed into, wherever that is."""
    folders = (place.parent, place.parent.parent)
    return any(next(folder.glob("*.dist-info"), None) is not None for folder in folders)


@functools.cache
def library(module: str) -> str:
    """A module of a library by its name, and the version of what is not versioned elsewhere."""
    top = module.split(".")[0]
    if top in _VERSIONED or top in sys.stdlib_module_names:
        return module
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"{module} {importlib.metadata.version(top)}"
    return f"{module} {getattr(sys.modules.get(top), '__version__', '')}"


def strangers(held: Any) -> list[tuple[str, FunctionType]]:
    """Functions of other code that somebody put into a module or a class of a library, by name."""
    return [
        (name, value)
        for name, value in list(vars(held).items())
        if type(value) is FunctionType and not is_library(value.__globals__.get("__name__", ""))
    ]


@functools.cache
def instructions(code: CodeType) -> str:
    """A hash of what code does with what it names and is given."""
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    constants = [_constant(value) for value in code.co_consts]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_flags, arguments)
    facts = (code.co_code, code.co_exceptiontable, code.co_names, constants, shape)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return instructions(value)
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    # The order of a set differs from process to process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values that a function's code names: of its module, of modules that it names, and of what it imports.

    Code may also reach a value by a text, such as with `getattr`; that is not seen.

    Examples:
        >>> def root(x):
        ...     import math
        ...     return math.sqrt(x)
        >>> list(named(root))
        [('math.sqrt', <built-in function sqrt>)]
    """
    names, held = _names(function.__code__), function.__globals__
    seen: set[int] = set()
    for name in names:
        if name in held:
            yield from _reached(name, held[name], names, seen)
    for module in _imported(function.__code__, held.get("__package__") or ""):
        yield from _reached(module.__name__, module, names, seen)


def _reached(name: str, value: Any, names: Sequence[str], seen: set[int]) -> Iterator[tuple[str, Any]]:
    if not ismodule(value):
        yield name, value
    elif id(value) not in seen:
        seen.add(id(value))
        held = vars(value)
        for inner in names:
            # What a library holds beside its code, such as the state of its random numbers, is its own.
            if inner in held and (not is_library(value.__name__) or _is_code(held[inner])):
                yield from _reached(f"{name}.{inner}", vars(value)[inner], names, seen)


def _is_code(value: Any) -> bool:
    owner = getattr(value, "__self__", None)
    if isinstance(value, (FunctionType, BuiltinFunctionType, ModuleType, type)):
        return owner is None or ismodule(owner)
    return not is_library(type(value).__module__)


@functools.cache
def _names(code: CodeType) -> tuple[str, ...]:
    inner = [_names(value) for value in code.co_consts if isinstance(value, CodeType)]
    return tuple(sorted({*code.co_names, *(name for names in inner for name in names)}))


def _imported(code: CodeType, package: str) -> Iterator[ModuleType]:
    """The modules that code imports when it runs; those of a library only where they are loaded already."""
    for name in _imports(code):
        full = name
        if name.startswith("."):
            if not package:
                continue
            full = importlib.util.resolve_name(name, package)
        if full not in sys.modules and not is_library(full):
            with suppress(ImportError):
                importlib.import_module(full)
        if full in sys.modules:
            yield sys.modules[full]


@functools.cache
def _imports(code: CodeType) -> tuple[str, ...]:
    found = {name for value in code.co_consts if isinstance(value, CodeType) for name in _imports(value)}
    if _IMPORT in code.co_code[::2]:
        given: list[Any] = []
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                # The level, then the names that are taken, were put onto the stack before.
                found.add("." * (given[-2] or 0) + step.argval)
            elif step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
                given.append(step.argval)
    return tuple(sorted(found))


def source_of(module: str) -> bytes:
    """The file of a module as it is now; nothing where it has none, as in a notebook."""
    path = getattr(sys.modules.get(module), "__file__", None)
    with suppress(OSError):
        return Path(path).read_bytes() if path else b""
    return b""

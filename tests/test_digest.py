"""What a function or a class does decides its hash, its name and its place do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache, partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import no_grad

from dlens.digest import class_digest, function_digest, unlike, value_digest


def test_constants_names_and_inner_functions_count() -> None:
    functions = [
        lambda x: x + 1,
        lambda x: x + 2,
        lambda x: x.first,
        lambda x: x.second,
        lambda x: [y + 1 for y in x],
        lambda x: [y + 2 for y in x],
    ]
    assert len({function_digest(function) for function in functions}) == len(functions)


def test_a_function_that_a_library_wraps_counts_by_what_it_wraps() -> None:
    def inner(x: int) -> int:
        return x + 1

    assert function_digest(lru_cache(inner)) == function_digest(no_grad()(inner)) == function_digest(inner)


def test_a_wrapper_of_ones_own_counts() -> None:
    def inner(x: int) -> int:
        return x + 1

    def wrapped(factor: int) -> Any:
        @wraps(inner)
        def outer(x: int) -> int:
            return factor * inner(x)

        return outer

    assert len({function_digest(function) for function in (inner, wrapped(2), wrapped(3))}) == 3


def test_the_names_and_the_order_of_arguments_count() -> None:
    def first(x: int, big: int, small: int) -> int:
        return x + big - small

    def second(x: int, small: int, big: int) -> int:
        return x + small - big

    assert function_digest(first) != function_digest(second)


def test_a_class_counts_with_its_bases_and_its_file(tmp_path: Path) -> None:
    def defined(helper: str) -> type:
        path = tmp_path / "scoring.py"
        path.write_text(
            textwrap.dedent(f"""
            def helper(x): return {helper}
            class Base:
                def score(self, x): return helper(x)
            class Task(Base): pass
        """)
        )
        module = ModuleType("scoring")
        module.__file__ = str(path)
        exec(compile(path.read_text(), str(path), "exec"), vars(module))
        return module.Task

    class First:
        def score(self) -> int:
            return 1

    class Second(First):
        def score(self) -> int:
            return 2

    assert len({class_digest(kind) for kind in (First, Second)}) == 2
    found = [class_digest(defined(helper)) for helper in ("x", "x + 1", "x")]
    assert found[0] == found[2] != found[1]


def test_defaults_closures_and_filled_in_arguments_count() -> None:
    def made(factor: float, default: int = 1) -> Any:
        def forward(x: float, by: int = default) -> float:
            return x * factor + by

        return forward

    kinds = [made(1.0), made(2.0), made(1.0, 2), partial(made(1.0), by=3), partial(made(1.0), by=4), max, min]
    assert len({function_digest(kind) for kind in kinds}) == len(kinds)
    assert function_digest(made(1.0)) == function_digest(made(1.0))


def test_members_of_a_class_count_however_they_are_held() -> None:
    def made(number: int, held: Any) -> type:
        return type("Task", (), {"score": held(lambda self=None: number), "limit": 3})

    digests = {class_digest(made(number, held)) for number in (1, 2) for held in (staticmethod, property, lambda f: f)}
    assert len(digests) == 6
    assert class_digest(type("Task", (), {"limit": 3})) != class_digest(type("Task", (), {"limit": 4}))


class Slots:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass(slots=True)
class Data:
    held: Any


class Chosen(Enum):
    FIRST = 1.0
    SECOND = 0.3


class Many(list[float]):
    """A list with a name."""

    def __init__(self, held: Any) -> None:
        super().__init__([1.0])
        self.held = held


KINDS: dict[str, Callable[[float], Any]] = {
    "number": lambda x: x,
    "bytes": lambda x: str(x).encode(),
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "set": lambda x: {x, "other"},
    "dict": lambda x: {"a": {"b": {"c": {"d": {"e": x}}}}},
    "ordered": lambda x: OrderedDict(a=x),
    "deque": lambda x: deque([x]),
    "range": lambda x: range(int(10 * x)),
    "slice": lambda x: slice(0, x),
    "decimal": lambda x: Decimal(str(x)),
    "fraction": lambda x: Fraction(str(x)),
    "pattern": lambda x: re.compile(str(x)),
    "flags": lambda x: re.compile("a", re.IGNORECASE if x == 1 else 0),
    "array": lambda x: np.array([x]),
    "float32": np.float32,
    "tensor": lambda x: torch.tensor([x], dtype=torch.bfloat16),
    "parameter": lambda x: torch.nn.Linear(1, 1).requires_grad_(False).weight.fill_(x),
    "slots": Slots,
    "dataclass": Data,
    "enum": Chosen,
    "subclass": Many,
    "partial": lambda x: partial(round, x),
    "method": lambda x: Data(x).__repr__,
    "bound": lambda x: [x].index,
    "generator": lambda x: np.random.default_rng(int(10 * x)),
    "closure": lambda x: lambda: x,
    "path": lambda x: Path(str(x)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_count_by_their_content(kind: str) -> None:
    first, again, other = (value_digest(KINDS[kind](x)) for x in (1.0, 1.0, 0.3))
    assert first == again != other


def test_kinds_of_values_differ() -> None:
    values = (
        [1],
        (1,),
        {1},
        {1: 1},
        1,
        1.0,
        "1",
        b"1",
        True,
        deque([1]),
        np.int64(1),
        torch.tensor(1),
        Data(1),
        Slots(1),
    )
    assert len(set(map(value_digest, values))) == len(values)


def test_what_holds_itself_is_read() -> None:
    def ring(number: int) -> list[Any]:
        held: list[Any] = [number]
        held.append(held)
        return held

    assert value_digest(ring(1)) == value_digest(ring(1)) != value_digest(ring(2))


def test_what_cannot_be_read_is_never_the_same(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        for held in (file, (number for number in (1,))):
            assert value_digest([held]) != value_digest([held])
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert value_digest(deep) != value_digest(deep)
    assert unlike() != unlike()


def test_locks_do_not_count() -> None:
    assert value_digest(threading.Lock()) == value_digest(threading.Lock())


def test_the_class_of_an_object_counts() -> None:
    def made(number: int) -> Any:
        return type("Held", (), {"limit": number, "__call__": lambda self: number})()

    assert value_digest(made(1)) == value_digest(made(1)) != value_digest(made(2))


def test_digests_are_the_same_in_another_process() -> None:
    code = """
import re, dlens.digest as d
from fractions import Fraction
def helper(x): return x in {"one", "two", "three"}
def score(x, y={"a", "b", "c"}): return helper(x) and re.match("a", x) and Fraction(1, 2)
class Task: score, held = score, {"one", "two", "three", "four"}
print(d.class_digest(Task), d.value_digest([Task(), score]))
"""
    runs = []
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
        runs.append(done.stdout)
    assert runs[0] == runs[1] != ""

"""What a function or a class does decides its hash, its name and its place do not."""

from __future__ import annotations

import textwrap
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from dlens.digest import class_digest, function_digest


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


def test_a_wrapped_function_counts_by_what_it_wraps() -> None:
    def inner(x: int) -> int:
        return x + 1

    @wraps(inner)
    def outer(x: int) -> int:
        return inner(x)

    assert function_digest(outer) == function_digest(inner)


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
    assert found[0] == found[2]


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

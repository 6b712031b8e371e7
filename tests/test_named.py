"""Code names values of its module, of other modules and of what it imports; libraries stand for themselves."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from dlens.digest import function_digest
from dlens.named import instructions, is_library, library, named, strangers

HELPER = """
LIMIT = 1
TABLE = {"a": [1]}
def deep(x): return x.strip()
def right(x): return deep(x)[:LIMIT], TABLE
class Norm:
    factor = 1
    def __call__(self, x): return x
"""

USERS = {
    "a name of its module": "from naming import right\ndef user(x): return right(x)",
    "an attribute of a module": "import naming\ndef user(x): return naming.right(x), naming.Norm()",
    "an import within": "def user(x):\n    from naming import right, Norm\n    return right(x), Norm()",
    "a module imported within": "def user(x):\n    import naming as n\n    return n.right(x)",
    "an inner function": "import naming\ndef user(x): return [(lambda y: naming.right(y))(y) for y in x]",
    "a default": "import naming\ndef user(x, how=naming.right): return how(x)",
}


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("naming")
    monkeypatch.setitem(sys.modules, "naming", module)
    exec(HELPER, vars(module))
    return module


def defined(code: str) -> Any:
    held: dict[str, Any] = {"__name__": "scoring"}
    exec(code, held)
    return held["user"]


@pytest.mark.parametrize("way", USERS)
def test_what_code_names_is_followed_into_other_modules(way: str, helper: Any) -> None:
    user = defined(USERS[way])
    found = [function_digest(user), function_digest(user)]
    helper.LIMIT = 2
    found.append(function_digest(user))
    helper.TABLE["a"].append(2)
    found.append(function_digest(user))
    helper.deep = lambda x: x.lower()
    found.append(function_digest(user))
    assert found[0] == found[1] and len(set(found)) == 4


def test_a_module_that_is_imported_later_counts_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_later.py").write_text("def right(x): return x")
    monkeypatch.syspath_prepend(tmp_path)
    user = defined("def user(x):\n    from named_later import right\n    return right(x)")
    before = function_digest(user)
    user(1)
    assert function_digest(user) == before
    monkeypatch.setattr("named_later.right", lambda x: -x)
    assert function_digest(user) != before
    del sys.modules["named_later"]


def test_a_relative_import_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = types.ModuleType("packaged.inner")
    exec("def right(x): return x", vars(inner))
    monkeypatch.setitem(sys.modules, "packaged.inner", inner)
    held: dict[str, Any] = {"__name__": "packaged.own", "__package__": "packaged"}
    exec("def user(x):\n    from .inner import right\n    return right(x)", held)
    assert list(named(held["user"])) == [("packaged.inner.right", inner.right)]


def test_what_stands_in_the_place_of_a_librarys_function_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def user(x: Any) -> Any:
        return torch.nn.functional.silu(x)

    before = function_digest(user)
    monkeypatch.setattr(F, "silu", lambda x, inplace=False: x)
    assert function_digest(user) != before
    assert [name for name, _ in strangers(F)] == ["silu"]


def test_random_states_of_a_library_do_not_count() -> None:
    import random

    def user(x: Any) -> Any:
        return random.Random(x).random()

    before = function_digest(user)
    random.random()
    assert function_digest(user) == before


def test_libraries_are_named_with_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed_elsewhere").mkdir()
    (tmp_path / "installed_elsewhere" / "__init__.py").write_text("")
    (tmp_path / "other-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert is_library("installed_elsewhere")
    assert is_library("transformers.modeling_utils") and not is_library("transformers.models.llama.modeling_llama")
    assert not is_library(__name__) and not is_library("") and not is_library("nobody_has_this")
    assert library("torch.nn") == "torch.nn" and library("scipy.stats").startswith("scipy.stats 1.")


def test_arguments_are_part_of_instructions() -> None:
    found = {
        instructions(function.__code__)
        for function in (lambda a, b: a, lambda a, *, b: a, lambda a, /, b: a, lambda b, a: b)
    }
    assert len(found) == 4

"""A part is computed once for a question, and again when the question or the code is another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dlens
from dlens.workers.store import Store, code_digest
from tests.test_files import full_disk


def test_the_same_question_is_answered_from_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "parts")
    assert [store.once({"part": "sum"}, lambda value=value: value) for value in (1, 2)] == [1, 1]
    assert store.once({"part": "other"}, lambda: 3) == 3
    [first, second] = (tmp_path / "parts").iterdir()
    assert store.reused[0] in (first, second) and len(store.reused) == 1
    entry = json.loads(store.reused[0].read_text())
    assert entry.pop("sum") == hashlib.sha256(b"1").hexdigest()
    assert entry == {"asked": {"code": code_digest(), "part": "sum"}, "result": 1}
    assert Store(tmp_path / "parts", fresh=True).once({"part": "sum"}, lambda: 4) == 4
    assert Store(tmp_path / "parts").once({"part": "sum"}, lambda: 5) == 4


def test_without_a_folder_nothing_is_kept() -> None:
    store = Store()
    assert [store.once({}, lambda value=value: value) for value in (1, 2)] == [1, 2] and not store.reused


def test_what_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).once({}, interrupt)
    assert not list(tmp_path.iterdir())


def test_the_digest_is_that_of_the_code_that_computes(tmp_path: Path) -> None:
    for name in ("findings/loss.py", "axes.py", "show/page.py", "widgets/panel.py", "cli.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = code_digest(tmp_path)

    def changed(name: str) -> bool:
        old = (tmp_path / name).read_text()
        (tmp_path / name).write_text(old + "#")
        code_digest.cache_clear()
        after = code_digest(tmp_path)
        (tmp_path / name).write_text(old)
        return after != before

    assert changed("findings/loss.py") and changed("axes.py")
    assert not any(map(changed, ("show/page.py", "widgets/panel.py", "cli.py")))
    code_digest.cache_clear()
    assert code_digest(tmp_path) == before != code_digest() == code_digest(Path(dlens.__file__).parent)


def other_answer(path: Path) -> None:
    Store(path.parent).once({"part": "other"}, lambda: 2)
    [other] = set(path.parent.iterdir()) - {path}
    other.replace(path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:-3]),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "null": lambda path: path.write_text("null"),
    "lists in lists": lambda path: path.write_text("[" * 200_000),
    "10,000 digits": lambda path: path.write_text("9" * 10_000),
    "without a result": lambda path: path.write_text("{}"),
    "a result that is none": lambda path: path.write_text(path.read_text().replace('"result": 1', '"result": null')),
    "another number": lambda path: path.write_text(path.read_text().replace('"result": 1', '"result": 2')),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "folder with a file": lambda path: (path.unlink(), path.mkdir(), (path / "mine").touch()),
    "swapped": other_answer,
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_part_is_computed_again_and_named(tmp_path: Path, case: str) -> None:
    def ask(result: int) -> float:
        return store.once({"part": "sum"}, lambda: result, float)

    store = Store(tmp_path)
    assert ask(1) == 1
    [path] = tmp_path.iterdir()
    DAMAGE[case](path)
    with pytest.warns(UserWarning, match=re.escape(f"{path} is damaged (")):
        assert ask(3) == 3
    assert store.reused == [] and ask(4) == 3 and store.reused == [path]
    assert len(list(tmp_path.rglob("mine"))) == (case == "folder with a file")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(OSError, match="cannot be written"):
        Store(tmp_path).once({}, lambda: "x" * 2000)
    assert not list(tmp_path.iterdir())


def test_what_json_spells_otherwise_is_not_taken_for_an_edit(tmp_path: Path) -> None:
    results = [Store(tmp_path).once({}, lambda: {1: (0.1, float("nan")), "b": None}) for _ in range(2)]
    assert [str(result[key]) for result, key in zip(results, (1, "1"), strict=True)] == ["(0.1, nan)", "[0.1, nan]"]

"""A part is computed once for a question, and again when the question or the code is another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dlens
from dlens.findings.study.stored import Store, code_digest


def test_the_same_question_is_answered_from_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "parts")
    assert [store.once({"part": "sum"}, lambda value=value: value) for value in (1, 2)] == [1, 1]
    assert store.once({"part": "other"}, lambda: 3) == 3
    [first, second] = (tmp_path / "parts").iterdir()
    assert store.reused[0] in (first, second) and len(store.reused) == 1
    entry = json.loads(store.reused[0].read_text())
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

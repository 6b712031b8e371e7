"""What is asked of a model follows from the settings, and each part is kept under its question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tqdm.auto import tqdm

import dlens
from dlens import tasks
from dlens.findings.study.asking import FULL, QUICK, Asking, StudySettings, n_parts
from dlens.findings.study.stored import Store

SMALL = StudySettings(problems=2, texts=2, draws=1, answered=("whole",), deep=False)


@pytest.mark.parametrize(("settings", "n"), [(QUICK, 1 + 8 + 5), (FULL, 1 + 8 + 7 + 2), (SMALL, 1 + 8 + 1)])
def test_parts_are_counted_before_they_are_computed(settings: StudySettings, n: int) -> None:
    assert n_parts(settings) == n


def test_every_part_is_kept_under_its_question(ar: dlens.Model, tmp_path: Path) -> None:
    asking = Asking(dlens.trace(ar), tasks.get("trio-code"), SMALL, Store(tmp_path), tqdm(disable=True))
    found = asking.all("ar")
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    names = [entry["asked"]["part"] for entry in kept]
    assert len(names) == n_parts(SMALL) and sorted(names) == ["answers", *["losses"] * 8, "reading"]
    assert all(entry["asked"]["model"] == ["trio/ar", ar.family.name, ar.fingerprint()] for entry in kept)
    asked = {entry["asked"]["asked"][0]["name"]: entry for entry in kept if entry["asked"]["part"] == "losses"}
    assert list(found.losses) == list(found.changes) and set(asked) == set(found.changes)
    assert asked["apart"]["asked"]["asked"][0]["layers"] == list(found.changes["apart"].layers)
    assert asked["apart"]["result"] == found.losses["apart"].to_json()
    assert list(found.answers) == ["whole"] and found.disruption is found.thirds is None
    again = asking.all("ar")
    assert json.dumps(again.to_json()) == json.dumps(found.to_json()), "NaN included"
    assert len(asking.store.reused) == n_parts(SMALL)

"""Workers compute the same parts into the same files."""

from dataclasses import replace
from pathlib import Path

import pytest

import dlens
from dlens import tasks
from dlens.findings.study.study import StudySettings, study
from dlens.workers import Here
from dlens.workers.store import Store
from tests.reference import shallow

SETTINGS = StudySettings(problems=2, texts=1, draws=1, answered=("whole", "apart"), deep=False)


def test_workers_compute_the_same_parts(ar: dlens.Model, tmp_path: Path) -> None:
    asked = {"models": [shallow(ar, 4)], "task": tasks.get("trio-code"), "settings": SETTINGS}
    here = study(**asked, store=Store(tmp_path / "here"), progress=False)
    there = study(**asked, store=Store(tmp_path / "there"), workers=Here(), progress=False)
    assert str(there.numbers()) == str(here.numbers())
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("here", "there")]
    assert names[0] == names[1]
    again = study(**asked, store=Store(tmp_path / "there"), workers=Here(), progress=False)
    assert again.reused == len(names[0]) and there.reused == here.reused == 0
    fresh = study(**asked, store=Store(tmp_path / "there", fresh=True), workers=Here(), progress=False)
    assert fresh.reused == 0 and str(replace(fresh, reused=0).numbers()) == str(here.numbers())


def test_workers_need_a_folder(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="workers without a folder; expected a store on disk"):
        study([ar], tasks.get("trio-code"), SETTINGS, workers=Here(), progress=False)

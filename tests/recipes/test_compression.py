"""What docs/compression.md shows is what was measured; the measuring itself runs on two problems."""

import json
from pathlib import Path

import numpy as np
import pytest

import dlens
from recipes.compression import measure
from recipes.compression.tables import (
    PAGE,
    TABLES,
    alphas,
    answers,
    change,
    kept,
    less,
    measured,
    solved,
    written,
)
from tests.reference import shallow

AR, DIFFUSION, AR_INIT = measure.MODELS
ROUNDED, EVEN, EARLY, LATE = "3 bits, GPTQ", "half, even", "half, early sparser", "half, late sparser"


def test_the_page_has_the_tables_of_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, answers()) == page
    assert all(f"<!-- {name} -->\n|" in page for name in TABLES)


@pytest.mark.parametrize("task", measure.TASKS)
def test_what_the_page_says_of_3_bits_came_out(task: str) -> None:
    found = answers()
    most, least = {"trio-math": (0.42, 0.39), "trio-code": (0.58, 0.13)}[task]
    lost = [1 - kept(found, AR, ROUNDED, task, str(seed)).value for seed in measure.SEEDS]
    assert (round(max(lost), 2), round(min(lost), 2)) == (most, least)
    for model in (DIFFUSION, AR_INIT):
        for seed in map(str, measure.SEEDS):
            assert 1 - kept(found, model, ROUNDED, task, seed).value <= {"trio-math": 0.195, "trio-code": 0.075}[task]
            assert less(found, model, AR, ROUNDED, task, seed).low > 0


@pytest.mark.parametrize("task", measure.TASKS)
def test_what_the_page_says_of_spreads_came_out(task: str) -> None:
    found = answers()

    def share(model: str, what: str) -> float:
        return float(np.mean([solved(found, model, what, task, str(seed)) for seed in measure.SEEDS]))

    assert share(DIFFUSION, EARLY) > share(DIFFUSION, LATE) + 0.2
    assert all(share(model, EARLY) < share(model, LATE) - 0.1 for model in (AR, AR_INIT))
    assert 0.2 < 1 - share(DIFFUSION, EARLY) / share(DIFFUSION, EVEN) < 0.34
    gained = share(AR, LATE) - share(AR, EVEN)
    assert gained > 0.25 if task == "trio-code" else gained < 0.03
    both = change(found, DIFFUSION, EARLY, LATE)
    assert both.low < 0 < both.high and change(found, AR, EARLY, LATE).low > 0


def test_what_the_page_says_of_skips_and_spectra_came_out() -> None:
    found = answers()
    for model in measure.MODELS:
        plain, small = change(found, model, "skip"), change(found, model, f"{ROUNDED}, skip", ROUNDED)
        assert plain.value < small.value < plain.high + 0.01
    differences = [alphas(model)[2] for model in (AR, DIFFUSION, AR_INIT)]
    assert differences[0].low < 0 < differences[0].high and differences[1].high < 0 < differences[2].value


def test_measuring_gives_what_the_tables_read(ar: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PROBLEMS", 2)
    monkeypatch.setattr(measure, "TASKS", measure.TASKS[:1])
    monkeypatch.setattr(measure, "MODELS", ("trio/ar",))
    monkeypatch.setattr(measure, "OUT", tmp_path / "answers.json")
    monkeypatch.setattr(measure, "calibration_texts", lambda: ["Once upon a time", "The dog ran away"])
    model = shallow(ar, 3)
    monkeypatch.setattr(measure.dlens, "load", lambda name: model)
    recipes = {name: measure.RECIPES[name] for name in ("3 bits, RTN", "half, even")}
    monkeypatch.setattr(measure, "RECIPES", recipes)
    measure.main()
    found = json.loads((tmp_path / "answers.json").read_text())
    assert list(found["answers"]["trio/ar"]) == ["as it is", "skip", *recipes]
    shipped = measured()
    for what, seeds in found["answers"]["trio/ar"].items():
        assert list(seeds) == list(shipped["answers"]["trio/ar"][what])
        for own in seeds.values():
            assert len(own["losses"]) == 2 and {len(text) for text in own["solved"].values()} == {2}
    assert np.shape(found["alphas"]["trio/ar"]) == (3, 7)

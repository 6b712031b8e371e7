from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlens.models.source import TRIO_FOLDER
from dlens.show.report.seeds import SEEDS_APART, kept_apart, kept_in_a_row, seeds_section
from recipes.trio import effects

EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]


def _effects(accuracy: float) -> dict[str, Any]:
    cosine = {"mean": EARLY, "low": EARLY, "high": EARLY}
    changed = ("skip early non-adjacent", "skip early consecutive", "skip late consecutive", "zero top channel")
    solved: dict[str, Any] = {"none": {"value": accuracy, "n": 300}} | {
        name: {"value": accuracy / 2} for name in changed
    }
    depth = {"top_channel": [5] * 7, "cosine": cosine, "top_share": cosine}
    return {"depth": {"0.0": depth}, "channels": {"top": [5]}, "accuracy": {"trio-code": solved}}


def test_training_seeds_are_shown_where_their_files_are(tmp_path: Path) -> None:
    assert seeds_section(folder=tmp_path) is None
    runs = ["ar-s1", "ar", "ar-6144", "ar-init", "diffusion-s2"]
    points = {name: {"points": [{"step": 64}, {"step": 9000 + i}]} for i, name in enumerate(runs)}
    (tmp_path / "training.json").write_text(json.dumps(points))
    (tmp_path / "effects.json").write_text(json.dumps({name: _effects(0.8) for name in runs}))
    section = seeds_section({"trio/ar": [7, 8], "trio/diffusion": [1], "trio/ar-init": [5]}, tmp_path)
    assert section is not None
    assert [row[:2] for row in section.rows] == [
        ["trio/ar, as shipped", 9001],
        ["trio/ar, on the way", 6144],
        ["trio/ar, seed 1", 9000],
        ["trio/ar-init, as shipped", 9003],
        ["trio/diffusion, seed 2", 9004],
    ]
    assert "300 problems of trio-code" in section.text and "same questions" not in section.text
    first = dict(zip(section.columns, section.rows[0], strict=True))
    assert first["trio-code accuracy"] == 0.8 and first["kept, early consecutive"] == 0.5
    assert (first["largest channel, all blocks but the last"], first["kept without that channel"]) == (5, 0.5)
    # The shipped diffusion model is not among these runs, and of trio/ar-init the report removes the same channel.
    assert section.text.endswith("on these texts; the report removes 7 and 8 from trio/ar, where it is 5 here.")
    assert first["cosine, early minus late"] == pytest.approx(0.99 - 0.85)


def test_the_blocks_and_texts_in_words_are_those_that_were_measured() -> None:
    section = seeds_section()
    assert section is not None
    for name in ("early non-adjacent", "early consecutive", "late consecutive"):
        assert f"{', '.join(map(str, effects.SKIPS[name]))} ({name})" in section.text
    assert f"on {effects._TEXTS} held-out texts" in section.text  # pyright: ignore


def test_each_shipped_run_names_the_channel_that_it_lost() -> None:
    section = seeds_section()
    assert section is not None and section.text.endswith("over all blocks but the last on these texts.")
    column = list(section.columns).index("largest channel, all blocks but the last")
    named = {row[0]: row[column] for row in section.rows}
    measured = json.loads((TRIO_FOLDER / "effects.json").read_text())
    for name in ("ar", "diffusion", "ar-init"):
        assert [named[f"trio/{name}, as shipped"]] == measured[name]["channels"]["top"]


def test_what_is_kept_in_a_row_is_that_of_the_shipped_models() -> None:
    found = kept_in_a_row("trio/diffusion")
    assert found is not None
    early, late = found
    assert (round(early.value, 3), round(late.value, 3), early.n) == (0.168, 0.034, 500)
    assert early.low < early.value < early.high and late.high < early.low
    assert kept_in_a_row("other/diffusion") is None and kept_in_a_row("trio/ar", TRIO_FOLDER / "none") is None


def test_what_is_kept_apart_is_that_of_the_shipped_models() -> None:
    found = kept_apart("trio/ar")
    assert found is not None and found.n == 500 and found.low <= found.value < found.high < 0.05
    assert tuple(effects.SKIPS["early non-adjacent"]) == SEEDS_APART
    assert kept_apart("other/ar") is None and kept_apart("trio/ar", TRIO_FOLDER / "none") is None

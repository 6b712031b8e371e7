"""The table is made of what is on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

import dlens
from dlens.sweeps.table import Entry, board_of, sweep_standing, write_plan
from dlens.workers.board import Failure, Standing
from dlens.workers.store import Store

AFTER, BEFORE = [True, False, True, False, True, True], [True, True, True, False, True, True]


def kept(board, values: list, **others) -> str:
    """A result on disk, and its name."""
    asked = {"values": values}
    known = {"flops": 75, "saved_flops": 25, "seconds": 1.0, "texts": []} | others
    Store(board.results).once(asked, lambda: {"values": values} | known)
    return Store(board.results).place(asked).stem


def entry(measure: str, unit: str, baseline: str) -> Entry:
    return Entry("m", "skip layers 3", measure, "t", 0, {"layers": "3"}, unit, baseline)


def test_shares_and_means_are_compared_in_pairs(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    after, before = [1.5, 2.5, 4.0], [1.0, 2.0, 2.0]
    pairs = {"accuracy": (AFTER, BEFORE), "loss": (after, before)}
    write_plan(board, [entry(what, *(kept(board, values) for values in pair)) for what, pair in pairs.items()])
    table = dlens.load_sweep(tmp_path).table()
    share, loss = (row for _, row in table.iterrows())
    low, high = binomtest(4, 6).proportion_ci(method="wilson")
    assert (share["value"], share["low"], share["high"], share["baseline"]) == (4 / 6, low, high, 5 / 6)
    assert share["difference"] == pytest.approx(-1 / 6) and share["retained"] == 4 / 5 and share["flops_saved"] == 0.25
    assert -1 <= share["difference_low"] < -1 / 6 < share["difference_high"] <= 1
    assert (loss["value"], loss["baseline"], loss["difference"]) == (np.mean(after), np.mean(before), 1.0)
    # A t interval with a correction for skewness: it reaches further to the side of the long tail.
    plain = ttest_rel(after, before).confidence_interval()
    assert loss["difference_low"] > plain.low and loss["difference_high"] > plain.high
    assert list(table["layers"]) == ["3", "3"]


def test_what_is_not_there_has_no_numbers(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    done = kept(board, AFTER)
    board.fail("broken", Failure("skip layers 3", "ValueError: no", "...", "here"))
    write_plan(board, [entry("accuracy", name, done) for name in (done, "broken", "waiting")])
    runs = dlens.load_sweep(tmp_path)
    table = runs.table()
    assert list(table["error"]) == ["", "ValueError: no", ""] and list(table["n"]) == [6, 0, 0]
    assert np.isnan(table["value"][1:]).all() and repr(runs) == "3 variants: 2 units, 1 failed"
    standing, failed = sweep_standing(tmp_path)
    assert standing == Standing(1, 0, 0, 1) and [each.error for each in failed] == ["ValueError: no"]
    with pytest.raises(KeyError):
        runs.answers(2)


def test_files_hold_the_table(tmp_path: Path) -> None:
    import pandas as pd

    board = board_of(tmp_path)
    write_plan(board, [entry("accuracy", kept(board, AFTER), kept(board, BEFORE))])
    table = dlens.load_sweep(tmp_path).table()
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)
    assert pd.read_csv(tmp_path / "t.csv")["retained_low"].tolist() == table["retained_low"].tolist()


@pytest.mark.parametrize("text", ["{", "[1]", '[{"model": "m"}]'])
def test_a_damaged_plan_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match="sweep.json is damaged .*; expected the rows of a sweep; call"):
        dlens.load_sweep(tmp_path)


def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    name = kept(board, AFTER)
    write_plan(board, [entry("accuracy", name, name)])
    path = board.results / f"{name}.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"result": {"values": BEFORE}}))
    assert dict(dlens.load_sweep(tmp_path).results) == {}


def test_a_folder_without_a_sweep_is_named(tmp_path: Path) -> None:
    for read in (dlens.load_sweep, sweep_standing):
        with pytest.raises(FileNotFoundError, match="holds no sweep; expected sweep.json in it; name the"):
            read(tmp_path)

import json
from pathlib import Path

import pandas as pd
import pytest

from dlens.cli import main
from dlens.workers.board import Failure
from tests.refusing import assert_three_parts

ASK = ["--task", "trio-code", "--problems", "2", "--max-new-tokens", "2", "--steps", "1", "--workers", "0"]


def test_a_table_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, csv = tmp_path / "runs", tmp_path / "table.csv"
    sets = ["--layers", "3", "3-5", "--out", str(out)]
    main(["sweep", "trio/diffusion", *sets, *ASK, "--table", str(csv)])
    printed = capsys.readouterr().out
    assert "skip layers 3, 4, 5" in printed and printed.endswith(f"Wrote {csv}\n")
    table = pd.read_csv(csv)
    assert list(table["plan"]) == ["skip layers 3", "skip layers 3, 4, 5"] and list(table["n"]) == [2, 2]
    main(["sweep", "--status", str(out), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["done"] == 3
    main(["sweep", "--status", str(out)])
    assert capsys.readouterr().out == f"{out}: 3 of 3 done, 0 running, 0 waiting\n"


def test_what_failed_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dlens.sweeps.table import Entry, board_of, write_plan

    board = board_of(tmp_path)
    write_plan(board, [Entry("m", "skip layers 3", "accuracy", "t", 0, {}, "a", "b")])
    board.fail("a", Failure("skip layers 3", "ValueError: no", "...", "node7"))
    main(["sweep", "--status", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1] == "failed on node7: skip layers 3: ValueError: no"


@pytest.mark.parametrize(
    ("arguments", "came"),
    [
        ([], "no model named"),
        (["trio/ar", "--task", "maths"], "task 'maths'"),
        (["trio/ar"], "a sweep that asks nothing"),
        (["trio/ar", "--task", "trio-code", "--workers", "cloud"], "workers='cloud'"),
        (["trio/ar", "--task", "trio-code", "--table", "x.xls"], "x.xls to write"),
        (["--status", "no/such/folder"], "no/such/folder holds no sweep"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(
    arguments: list[str], came: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["sweep", *arguments])
    [line] = capsys.readouterr().err.splitlines()
    assert_three_parts(line.removeprefix("dlens: "), came)
    assert list(tmp_path.iterdir()) == []

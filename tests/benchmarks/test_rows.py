"""What a benchmark prints and writes."""

import re
from datetime import date
from pathlib import Path

import pytest

from benchmarks.rows import Row, publish, read_result
from benchmarks.timing import Ratio


def test_a_result_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row.of("work / plain", "trio", Ratio(1.5, 1.25, 2.0, 3), 1.0), Row("memory", "trio", 0.5, 1.0, unit="GiB")]
    publish(rows, tmp_path / "new" / "work.json", "benchmarks.work", rounds=3, block_length=8, quick=True, slow=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| work / plain | trio | 1.500 | 1.250 to 2.000 | 1.000 | over |",
        "| memory | trio | 0.500 GiB |  | 1.000 | holds |",
    ]
    result = read_result(tmp_path / "new" / "work.json")
    assert result.command == "python -m benchmarks.work --rounds 3 --block-length 8 --quick"
    assert result.rows == rows and result.date == f"{date.today()}"
    assert re.fullmatch(r"\d+ cores, CPU", result.machine) and {"dlens", "torch"} <= set(result.versions)

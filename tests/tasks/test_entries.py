"""Benchmark files line by line: plain, gzipped, and what is no such file."""

import gzip
import json
from pathlib import Path

import pytest

from dlens import tasks
from dlens.tasks.entries import read_entries


def test_line_separators_inside_json_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    entry = {"question": "One\u2028and one?", "answer": "#### 2"}
    path.write_text(json.dumps(entry, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    assert tasks.from_file(path, "gsm8k", shots=0).problems(1)[0].prompt == "Question: One\u2028and one?\nAnswer:"


def test_what_is_no_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl.gz"
    for content in (b"{}", gzip.compress(b"{}" * 99)[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read: .*; expected UTF-8 text, gzipped .*; download"):
            tasks.from_file(path, "gsm8k", allow_code=True)


def test_every_entry_has_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1, "b": "x", "c": null}\n\n{"a": 2, "b": ""}\n')
    assert read_entries(path, {"a": int, "b": str}) == [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": ""}]
    with pytest.raises(ValueError, match=r"line 1: without a usable c; expected an object with c \(int\); check"):
        read_entries(path, {"c": int})
    path.write_text('{"a": true}')
    with pytest.raises(ValueError, match="line 1: without a usable a"):  # a bool is no whole number
        read_entries(path, {"a": int})

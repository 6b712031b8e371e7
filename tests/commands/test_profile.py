import json

import pytest

from dlens.cli import main
from dlens.findings.layers.profile import Profile


def test_profile_prints_a_table_and_writes_json(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "profile.json"
    main(["profile", "trio/ar", "--inputs", "clean", "--out", str(path)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"Wrote {path}\n")
    assert sum(line.split()[:1] == ["15"] for line in printed.splitlines()) == 1
    saved = Profile.from_json(json.dumps(json.loads(path.read_text())["trio/ar"]))
    assert len(saved.table()) == 16


def test_profile_writes_one_page(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profile.html"
    main(["profile", "trio/ar", "--inputs", "clean", "--out", str(path)])
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out.endswith(f"Wrote {path}\n")


def test_rows_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["profile", "trio/ar", "--inputs", "clean", "--json", "-"])
    rows = json.loads(capsys.readouterr().out)["profiles"]
    assert [row["layer"] for row in rows] == list(range(16)) and rows[0]["model"] == "trio/ar"

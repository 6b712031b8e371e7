import json
from dataclasses import replace
from pathlib import Path

import pytest

from dlens.caches import Delayed
from dlens.cli import main
from dlens.commands.options import LoadOptions
from dlens.findings.study.study import StudySettings
from dlens.show.report import report as reports


def test_report_writes_a_page_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "QUICK", replace(reports.QUICK, texts=2, draws=1))
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    out, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    for _ in range(2):
        main(["report", "trio/ar", "--quick", "--problems", "2", "--out", str(out), "--json", str(numbers), "--open"])
        outcome, wrote = capsys.readouterr().out.splitlines()[-2:]
        assert wrote == f"Wrote {out}"
        entry = json.loads(numbers.read_text())
        verdicts = [cell["verdict"] for row in entry["claims"] for cell in row["cells"]]
        holds, fails, undecided = map(verdicts.count, ("holds", "does not hold", "undecided"))
        assert outcome == f"{len(verdicts)} verdicts: {holds} hold, {fails} do not, {undecided} undecided"
        assert len(verdicts) == holds + fails + undecided > 0
    assert "What holds" in out.read_text()
    entry = json.loads(numbers.read_text())
    assert entry["reused"] > 0 and entry["models"]["trio/ar"]["kind"] == "ar"
    assert shown == [out.as_uri()] * 2


def test_the_cache_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[StudySettings] = []

    def written(models: object, out: Path, json: object, task: object, settings: StudySettings, **_: object) -> object:
        asked.append(settings)
        return out, ()

    monkeypatch.setattr(reports, "write_report", written)
    monkeypatch.setattr(LoadOptions, "load", lambda self, model: model)
    main(["report", "trio/ar", "--cache", "delayed"])
    main(["report", "trio/ar"])
    assert [settings.cache for settings in asked] == [Delayed(), "auto"]

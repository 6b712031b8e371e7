import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest

import dlens
from dlens.cli import _print_retention, main, parse_layers
from dlens.findings.effects.retention import judged
from dlens.findings.layers.profile import Profile
from dlens.show.report import report as reports
from tests.findings.answers import answers


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["trio/ar", "autoregressive", "autoregressive"]
    assert any(line.startswith("llada") for line in lines)


def test_generate_prints_the_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/ar", "Once upon a", "--max-new-tokens", "2", "--skip", "3"])
    assert capsys.readouterr().out.startswith(" time")


@pytest.mark.parametrize(
    "options",
    [
        ["--sampler", "llada", "--steps", "2", "--block-length", "4", "--remasking", "random", "--seed", "3"],
        ["--sampler", "dream", "--steps", "4", "--algorithm", "entropy", "--temperature", "0.5", "--top-p", "0.9"],
        ["--sampler", "threshold", "--threshold", "0.5"],
        ["--steps", "2", "--block-length", "2"],
    ],
)
def test_generate_with_every_sampler(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/diffusion", "Once upon a", "--max-new-tokens", "4", *options])
    assert capsys.readouterr().out.strip()


def test_watch_shows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/diffusion", "Once upon a", "--max-new-tokens", "3", "--watch"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert [line.count("░") for line in lines] == [2, 1, 0]


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


def test_skip_shows_text_loss_and_flops(capsys: pytest.CaptureFixture[str]) -> None:
    main(["skip", "trio/ar", "--layers", "3-5", "--prompt", "Once upon a time", "--max-new-tokens", "4"])
    printed = capsys.readouterr().out
    assert "all layers: Once upon a time" in printed and "skipped: Once upon a time" in printed
    assert "loss: " in printed
    # 3 of 16 blocks, of a forward in which the head does not shrink.
    saved = float(printed.split("FLOPs: ")[1].split("%")[0])
    assert 10 < saved < 18.75


def test_skip_shows_what_a_task_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "skip",
        "trio/ar",
        "--layers",
        "3,5",
        "--max-new-tokens",
        "2",
        "--task",
        "trio-code",
        "--problems",
        "4",
    ]
    main(arguments)
    kept = dlens.retention(dlens.trace("trio/ar").skip([3, 5]), task="trio-code", n=4)
    printed = capsys.readouterr().out
    assert (
        f"trio-code: {kept.baseline:.1%} of 4 problems solved with all layers, {kept.accuracy:.1%} skipped" in printed
    )
    assert f"{kept.retained:.1%} retained, 95 % interval {kept.low:.1%} to {kept.high:.1%}" in printed
    for scores in (kept.before, kept.after):
        low, high = binomtest(sum(scores.correct), 4).proportion_ci(method="wilson")
        assert f"{low:.1%} to {high:.1%}" in printed
    assert "the time" not in printed
    assert printed.endswith("undecided whether anything is lost\n") == (kept.p_value >= 0.05)


@pytest.mark.parametrize(("after", "undecided"), [("0000001111", False), ("0011111111", True)])
def test_what_is_undecided_is_said(after: str, undecided: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _print_retention(judged("by hand", answers("1" * 10), answers(after), seed=0))
    assert capsys.readouterr().out.endswith("undecided whether anything is lost\n") == undecided


def test_report_writes_a_page_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "QUICK", replace(reports.QUICK, texts=2, draws=1))
    out, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    for _ in range(2):
        main(["report", "trio/ar", "--quick", "--problems", "2", "--out", str(out), "--json", str(numbers)])
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "trio/ar", "x", "--skip", "40"], "layer 40 of trio/ar; expected -16 to 15"),
        (["generate", "trio/ar", "x", "--skip", "a,b"], "layers 'a,b'; expected numbers"),
        (
            ["generate", "trio/diffusion", "x", "--sampler", "dream", "--block-length", "4"],
            "--block-length with the sampler",
        ),
        (["generate", "trio/diffusion", "x", "--sampler", "ar"], "Autoregressive for trio/diffusion"),
        (["report", "trio/ar", "--out", "x.pdf"], "x.pdf to write; expected a name that ends in .html"),
        (["report", "trio/ar", "--task", "maths"], "task 'maths'; expected one of"),
        (["report", "trio/ar", "--task", "gsm8k:none.jsonl"], "no file none.jsonl; expected"),
        (["skip", "trio/ar", "--layers", "3", "--task", "maths"], "task 'maths'; expected one of"),
        (["skip", "trio/ar", "--layers", "3", "--task", "trio-math", "--problems", "1"], "n=1; expected at least 2"),
        (["profile"], "no model named; expected at least one"),
        (["profile", "trio/ar", "--out", "x.png"], "--out x.png; expected a name that ends in .json or .html"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dlens: ")]
    assert line.startswith(f"dlens: {message}")


def test_the_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "dlens", "generate", "no/such-model", "x"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("dlens: ")


def test_layers_are_read_from_text() -> None:
    assert parse_layers("3, 5-7,-1") == [3, 5, 6, 7, -1]

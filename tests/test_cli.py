import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version as metadata_version
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


def test_generate_prints_the_prompt_and_its_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/ar", "Once upon a", "--max-new-tokens", "2", "--skip", "3"])
    assert capsys.readouterr().out.startswith("Once upon a time")


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
        (
            ["profile", "trio/ar", "trio/ar", "--out", "x.json"],
            "two models of the name trio/ar; expected different ones",
        ),
        (["profile", "none/such", "--out", "/proc/x.json"], "/proc/x.json cannot be written; expected a file"),
        (["generate", "trio/ar", "x", "--skip", "0-9999999"], "layers '0-9999999'; expected a range that rises, of at"),
        (["generate", "trio/ar", "x", "--skip", "5-3"], "layers '5-3'; expected a range that rises"),
        (["generate", "trio/ar", "x", "--dtype", "bf16"], "--dtype bf16; expected a type of torch; write float32"),
        (["generate", "trio/ar", "x", "--dtype", "int8"], "--dtype int8; expected a type of torch; write float32"),
        (["generate", "trio/ar", "x", "--device-map", "cuda:99"], "--device-map cuda:99 where torch sees"),
        (["generate", "trio/ar", "x", "--temperature", "inf"], "temperature=inf; expected 0 or more, and finite"),
        (["generate", "trio/ar", "x", "--seed", "-1"], "seed=-1; expected 0 to"),
        (["generat", "trio/ar"], "Unrecognized options: generat, trio/ar; expected one of models, generate"),
        (["generate", "trio/ar", "x", "--foo"], "Unrecognized options: --foo; expected those that it takes; see dlens"),
        (["generate"], "dlens generate without MODEL name of a shipped model"),
        (["generate", "x", "y", "--seed", "abc"], "--seed 'abc'; expected a whole number; see dlens generate --help"),
        (
            ["generate", "x", "y", "--sampler", "beam"],
            "--sampler 'beam'; expected one of ar, dream, llada, threshold; see",
        ),
        ([], "no command; expected one of models, generate, profile, skip, report; see dlens --help"),
        (["profile", "trio/ar", "--out", "x.png"], "--out x.png; expected a name that ends in .json or .html"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dlens: {message}")


def test_the_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "dlens", "generate", "no/such-model", "x"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("dlens: ")


def gsm8k(path: Path) -> str:
    entries = [{"question": f"{'One and ' * 60}{i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(9)]
    path.write_text("\n".join(map(json.dumps, entries)))
    return f"gsm8k:{path}"


@pytest.mark.parametrize("command", [["skip", "trio/ar", "--layers", "3"], ["report", "trio/ar"]])
def test_a_task_that_does_not_fit_is_refused_before_anything_is_computed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlens.tracing.chain.Trace.generate", lambda *_, **__: pytest.fail("it computes"))
    monkeypatch.setattr("dlens.tracing.chain.Trace.forward", lambda *_, **__: pytest.fail("it computes"))
    with pytest.raises(SystemExit):
        main([*command, "--task", gsm8k(tmp_path / "test.jsonl"), "--problems", "2"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dlens: gsm8k takes ") and "expected at most 512, which trio/ar has" in line
    assert line.endswith("or fewer shots (shots=, --shots)")


def test_fewer_shots_make_it_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = gsm8k(tmp_path / "test.jsonl")
    options = ["--layers", "3", "--max-new-tokens", "1", "--task", task, "--problems", "2", "--shots", "0"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dlens.tasks.formats.gsm8k.Gsm8k.max_new_tokens", 2)
        main(["skip", "trio/ar", *options])
    assert "gsm8k: 0.0% of 2 problems solved" in capsys.readouterr().out


def test_help_names_no_empty_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "profile", "skip", "report"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and "(default: )" not in said and "{None}" not in said


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"dlens {metadata_version('dlens')}\n"


@pytest.mark.parametrize("watch", [False, True])
def test_a_terminal_that_lacks_letters_and_a_text_that_commands_it(
    watch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(said, encoding="latin-1", write_through=True))
    prompt = "Once \x1b[31mupon\ra\u4e2d"
    main(["generate", "trio/diffusion", prompt, "--max-new-tokens", "2", *(["--watch"] if watch else [])])
    found = said.getvalue()
    assert b"\x1b" not in found and b"\r" not in found
    assert found.startswith(b"step 1 of 2: " if watch else rb"Once \x1b[31mupon\x0da\u4e2d")
    assert (b"_" in found) == watch


def test_layers_are_read_from_text() -> None:
    assert parse_layers("3, 5-7,-1") == [3, 5, 6, 7, -1]

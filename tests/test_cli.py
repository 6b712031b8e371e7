import os
import subprocess
import sys
from importlib.metadata import version as metadata_version
from pathlib import Path

import pytest

from dlens.cli import main
from tests.commands.problems import gsm8k


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
            "--sampler 'beam'; expected one of ancestral, ar, block, dream, first-hitting, llada, threshold; see",
        ),
        ([], "no command; expected one of models, generate, profile, skip, report, sweep, evaluate; see dlens --help"),
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


def test_help_names_no_empty_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "profile", "skip", "report", "sweep", "evaluate"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and "(default: )" not in said and "{None}" not in said


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"dlens {metadata_version('dlens')}\n"

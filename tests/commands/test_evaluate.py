import json
from pathlib import Path

import pytest

from dlens.cli import main
from tests.commands.problems import gsm8k
from tests.refusing import assert_three_parts


# What lm-eval and its libraries say of themselves.
@pytest.mark.filterwarnings("ignore")
def test_scores_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = gsm8k(tmp_path / "test.jsonl")
    short = ["--shots", "0", "--limit", "2", "--max-new-tokens", "2", "--skip", "3"]
    main(["evaluate", "trio/ar", task, *short, "--json", str(tmp_path / "scores.json")])
    assert "exact_match" in capsys.readouterr().out
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["model"] == "trio/ar" and found["plan"] == ["skip layers 3"]
    assert {row["task"] for row in found["scores"]} == {"gsm8k"} and {row["n"] for row in found["scores"]} == {2}


@pytest.mark.parametrize(
    ("arguments", "came"),
    [
        (["trio/ar"], "no task named"),
        (["trio/ar", "gsm8k:none.jsonl"], "none.jsonl"),
        (["trio/ar", "x", "--skip", "a"], "layers 'a'"),
    ],
    ids=["no task", "no file", "layers"],
)
def test_mistakes_are_one_line(arguments: list[str], came: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", *arguments])
    [line] = capsys.readouterr().err.splitlines()
    assert_three_parts(line.removeprefix("dlens: "), came)

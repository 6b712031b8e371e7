import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

import dlens
from dlens.caches import Dual
from dlens.cli import main
from dlens.commands.skip import _print_retention
from dlens.findings.effects.retention import judged
from dlens.tracing.chain import Trace
from tests.commands.problems import gsm8k
from tests.findings.answers import answers


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


def test_fewer_shots_make_it_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = gsm8k(tmp_path / "test.jsonl")
    options = ["--layers", "3", "--max-new-tokens", "1", "--task", task, "--problems", "2", "--shots", "0"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dlens.tasks.formats.gsm8k.Gsm8k.max_new_tokens", 2)
        main(["skip", "trio/ar", *options])
    assert "gsm8k: 0.0% of 2 problems solved" in capsys.readouterr().out


def test_numbers_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "skip.json"
    main(["skip", "trio/ar", "--layers", "3", "--prompt", "Once upon", "--max-new-tokens", "2", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["plan"] == "skip layers 3" and found["losses"][1] > found["losses"][0] and len(found["texts"]) == 2
    assert "retention" not in found and 0 < found["saved_flops"] < found["flops"]


def test_both_texts_and_all_answers_have_the_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []
    generate = Trace.generate

    def watched(self: Trace, *args: Any, **settings: Any) -> dlens.Record:
        used.append(settings["cache"])
        return generate(self, *args, **settings)

    monkeypatch.setattr(Trace, "generate", watched)
    asked = ["--layers", "5", "--max-new-tokens", "2", "--task", "trio-code", "--problems", "2", "--cache", "dual"]
    main(["skip", "trio/diffusion", *asked, "--json", "-"])
    assert used == [Dual()] * 4
    assert json.loads(capsys.readouterr().out)["cache"] == "Dual()"


def test_a_cache_of_an_autoregressive_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["skip", "trio/ar", "--layers", "5", "--cache", "prefix"])
    assert stopped.value.code == 2 and "cache=Prefix on trio/ar" in capsys.readouterr().err

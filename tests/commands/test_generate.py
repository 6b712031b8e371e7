import io
import json

import pytest

import dlens
from dlens.caches import Dual
from dlens.cli import main
from dlens.samplers import LLaDA


def test_generate_prints_the_prompt_and_its_continuation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/ar", "Once upon a", "--max-new-tokens", "2", "--skip", "3"])
    assert capsys.readouterr().out.startswith("Once upon a time")


@pytest.mark.parametrize(
    "options",
    [
        ["--sampler", "llada", "--steps", "2", "--block-length", "4", "--remasking", "random", "--seed", "3"],
        ["--sampler", "dream", "--steps", "4", "--algorithm", "entropy", "--temperature", "0.5", "--top-p", "0.9"],
        ["--sampler", "threshold", "--threshold", "0.5"],
        [
            "--sampler",
            "block",
            "--block-length",
            "4",
            "--edit-threshold",
            "0.9",
            "--small-block",
            "2",
            "--stop",
            "never",
        ],
        ["--sampler", "first-hitting", "--block-length", "2"],
        ["--sampler", "ancestral", "--steps", "3", "--eps", "0.1"],
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


def test_a_run_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "trio/ar", "Once upon a", "--max-new-tokens", "2", "--skip", "3", "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert found["text"].startswith(" time") and found["prompt"] == "Once upon a" and found["flops"] > 0
    assert [entry["words"] for entry in found["plan"]] == ["skip layers 3"]


def test_a_run_with_a_cache(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", "trio/diffusion", "Once upon a", "--max-new-tokens", "4", "--block-length", "2"]
    found = []
    for own in ([], ["--cache", "dual"]):
        main([*asked, *own, "--json", "-"])
        found.append(json.loads(capsys.readouterr().out))
    record = dlens.trace("trio/diffusion").generate("Once upon a", 4, sampler=LLaDA(block_length=2), cache=Dual())
    assert [each["cache"] for each in found] == ["auto", "Dual()"]
    assert found[1]["text"] == record.text[0] and found[1]["flops"] == record.flops < found[0]["flops"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["trio/ar", "Once", "--cache", "dual"], "cache=Dual on trio/ar; expected 'auto', 'require' or 'off'"),
        (["trio/diffusion", "Once", "--cache", "blocks"], "Blocks on a model in which every position"),
        (["trio/diffusion", "Once", "--cache", "double"], "--cache"),
    ],
)
def test_a_cache_that_does_not_fit(asked: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *asked])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and why in said.err and len(said.err.splitlines()) == 1 and not said.out

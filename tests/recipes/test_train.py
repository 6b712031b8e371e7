"""The whole recipe, small: the same seed gives the same run, also after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import dlens
from recipes.trio.batches import WIDTHS, Batches
from recipes.trio.train import train

SMALL = {"steps": 8, "tokens_per_step": 512, "layers": 2, "marks": (4,), "problems": 1}


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for name, start in (("ar", None), ("diffusion", None), ("ar-init", out / "ar" / "model")):
        train(name, data=data, out=out / name, start=start, **SMALL)
    return out


@pytest.mark.parametrize("name", ["ar", "diffusion", "ar-init"])
def test_a_run_leaves_losses_numbers_and_a_model(runs: Path, data: Path, name: str) -> None:
    losses, numbers = _lines(runs / name / "losses.jsonl"), _lines(runs / name / "numbers.jsonl")
    assert [line["step"] for line in losses] == list(range(1, 9))
    assert [(line["step"], line["tokens"]) for line in numbers] == [(4, 2048), (8, 4096)]
    assert len(numbers[0]["cosine"]) == len(numbers[0]["top_share"]) == 2
    model = dlens.load(runs / name / "model")
    plain = AutoModelForCausalLM.from_pretrained(runs / name / "model")
    assert model.family.objective == ("autoregressive" if name == "ar" else "diffusion")
    ids = AutoTokenizer.from_pretrained(runs / name / "model")("The red dog", return_tensors="pt").input_ids
    record = dlens.trace(model).capture("logits").forward(ids[0].tolist())
    assert torch.equal(record["logits"], plain.eval()(ids).logits) or name != "ar"


def test_a_learning_model_learns(runs: Path) -> None:
    first, *_, last = _lines(runs / "ar" / "losses.jsonl")
    assert float(str(last["loss"])) < float(str(first["loss"])) - 0.1


def test_a_killed_run_goes_on_to_the_same_end(runs: Path, data: Path, tmp_path: Path) -> None:
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items() if key != "marks"]
    command = [sys.executable, "-m", "recipes.trio.train", "diffusion", f"--data={data}", f"--out={tmp_path}"]
    process = subprocess.Popen([*command, *arguments, "--marks", "4"], stderr=subprocess.DEVNULL)
    while not (tmp_path / "state.pt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "model").exists()
    train("diffusion", data=data, out=tmp_path, **SMALL)
    assert _lines(tmp_path / "losses.jsonl") == _lines(runs / "diffusion" / "losses.jsonl")
    assert _lines(tmp_path / "numbers.jsonl") == _lines(runs / "diffusion" / "numbers.jsonl")
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (tmp_path, runs / "diffusion")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_start_that_does_not_fit_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected ar"):
        train("ar-init", data=data, out=tmp_path)
    with pytest.raises(ValueError, match="expected none"):
        train("ar", data=data, out=tmp_path, start=tmp_path)


def test_a_pass_sees_every_row_once(data: Path) -> None:
    batches = Batches(data / "train.npy", 512, seed=0, device=torch.device("cpu"))
    seen: list[tuple[int, ...]] = []
    step = 0
    while len(seen) < len(batches.rows):
        tokens, question = batches[step]
        assert (
            tokens.numel() == 512 and tokens.shape[1] == WIDTHS[step % len(WIDTHS)] and question.shape == tokens.shape
        )
        seen += [tuple(row[:64].tolist()) for row in tokens]
        step += 1
    every = sorted(tuple((row[:64].int() & 0x7FFF).tolist()) for row in batches.rows)
    assert sorted(seen[: len(every)]) == every


def test_batches_depend_on_seed_and_step_alone(data: Path) -> None:
    one, same, other = (Batches(data / "train.npy", 512, seed, torch.device("cpu")) for seed in (0, 0, 1))
    for step in (7, 0, 3):
        assert torch.equal(one[step][0], same[step][0])
    assert not torch.equal(one[0][0], other[0][0])

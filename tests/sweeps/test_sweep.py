"""A sweep finds what a plain loop finds, each number once, whoever computes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dlens
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.loss import text_loss
from dlens.findings.scores.repetition import repetition
from dlens.sweeps import asks
from dlens.workers import Local
from tests.refusing import assert_three_parts
from tests.standins import save_llada
from tests.unchecked import unchecked

TEXTS = ["Once upon a time", "Two and two is four", "def f(x):"]
SAMPLER = dlens.samplers.LLaDA(steps=2)


@pytest.fixture(scope="module")
def model() -> dlens.Model:
    return dlens.load("trio/diffusion")


@pytest.fixture
def computing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The measures that were computed, in order."""
    seen: list[str] = []
    for kind in (asks.Solve, asks.Prompts, asks.Texts):
        plain = kind.answer
        monkeypatch.setattr(kind, "answer", lambda self, it, plain=plain: (seen.append(str(it)), plain(self, it))[1])
    yield seen


def small(traces: Any, out: Path, **changed: Any) -> Any:
    settings: dict[str, Any] = {"task": "trio-code", "n": 2, "max_new_tokens": 4, "sampler": SAMPLER, "workers": 0}
    return dlens.sweep(traces, out=out, **settings | changed)


def test_accuracies_are_those_of_retention(model: dlens.Model, tmp_path: Path) -> None:
    traces = [dlens.trace(model).skip([layer]) for layer in (2, 5)]
    decoding = {"task": "trio-code", "n": 4, "max_new_tokens": 32, "sampler": dlens.samplers.LLaDA(steps=4)}
    table = small(traces, tmp_path, **decoding).table()
    for trace, (_, row) in zip(traces, table.iterrows(), strict=True):
        kept = dlens.retention(trace, **decoding)
        assert row["plan"] == kept.plan[0]["words"] and row["n"] == 4 and row["baseline"] > 0
        assert (row["value"], row["baseline"], row["p"]) == (kept.accuracy, kept.baseline, kept.p_value)
        found = [row[name] for name in ("retained", "retained_low", "retained_high", "flops_saved")]
        np.testing.assert_array_equal(found, [kept.retained, kept.low, kept.high, kept.flops_saved])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_losses_are_those_of_each_text(model: dlens.Model, tmp_path: Path) -> None:
    trace = dlens.trace(model).skip([3])
    table = small(trace, tmp_path, task=None, texts=TEXTS, seeds=[4, 9], draws=2).table()
    for seed, (_, row) in zip((4, 9), table.iterrows(), strict=True):
        after, before = (
            [text_loss(each, [text], draws=2, seed=seed + i).value for i, text in enumerate(TEXTS)]
            for each in (trace, dlens.trace(model))
        )
        assert row["seed"] == seed and row["measure"] == "loss" and row["n"] == 3
        assert row["value"] == np.mean(after) and row["baseline"] == np.mean(before)
        assert row["difference"] == pytest.approx(np.mean(after) - np.mean(before), abs=1e-12)
        assert np.isnan(row["retained"]) and np.isnan(row["p"])


def test_prompts_are_continued_as_by_hand(model: dlens.Model, tmp_path: Path) -> None:
    trace = dlens.trace(model).skip([3])
    runs = small(trace, tmp_path, task=None, prompts=["Once upon a time", "Two"], sampler=None, batch_size=1)
    records = [trace.generate(prompt, 4, progress=False) for prompt in ("Once upon a time", "Two")]
    assert list(runs.answers(0)["texts"]) == [record.text[0] for record in records]
    new = [record.tokens[0, -4:].tolist() for record in records]
    assert list(runs.answers(0)["values"]) == [repetition([row]) for row in new]


def test_autoregressive_models_too(tmp_path: Path) -> None:
    trace = dlens.trace("trio/ar").skip([3])
    runs = small(trace, tmp_path, sampler=None, prompts=["Once upon a time"], seeds=3)
    scores = score_task(trace, "trio-code", n=2, seed=3, max_new_tokens=4)
    assert runs.answers(0)["values"] == list(scores.correct) and runs.answers(0)["texts"] == list(scores.texts)
    assert runs.answers(1)["texts"] == trace.generate("Once upon a time", 4).text
    assert list(runs.table()["seed"]) == [3, 3]


def test_everything_is_computed_once(model: dlens.Model, tmp_path: Path, computing: list[str]) -> None:
    trace = dlens.trace(model)
    first = small([trace.skip([2]), trace.skip([3]), trace.skip([2])], tmp_path)
    words = ["as it is", "skip layers 2", "skip layers 3"]
    assert computing == [f"trio/diffusion, {each}" for each in words]
    again = small([trace.skip([3]), trace.skip([2])], tmp_path)
    assert len(computing) == 3
    pd.testing.assert_frame_equal(again.table(), first.table().iloc[[1, 0]].reset_index(drop=True))
    small([trace.skip([3]), trace.skip([4])], tmp_path)
    assert computing[3:] == ["trio/diffusion, skip layers 4"]
    small(trace.skip([3]), tmp_path, fresh=True)
    assert len(computing) == 6
    # Whatever else is asked is another unit.
    for changed in ({"seeds": 1}, {"n": 3}, {"max_new_tokens": 8}, {"sampler": dlens.samplers.LLaDA(steps=4)}):
        before = len(computing)
        small(trace.skip([3]), tmp_path, **changed)
        assert len(computing) == before + 2, changed


def test_a_changed_weight_is_another_model(model: dlens.Model, tmp_path: Path, computing: list[str]) -> None:
    trace = dlens.trace(model)
    small(trace.skip([2]), tmp_path)
    weight = next(model.module.parameters()).data
    weight[0, 0] += 1
    try:
        small(trace.skip([2]), tmp_path)
    finally:
        weight[0, 0] -= 1
    assert len(computing) == 4


def test_a_grid_decodes_in_the_way_of_each_cell(model: dlens.Model, tmp_path: Path) -> None:
    samplers = [dlens.samplers.LLaDA(steps=2), dlens.samplers.LLaDA(steps=4)]
    runs = small(dlens.grid(model, layers=[[], [3]], samplers=samplers), tmp_path, sampler=None)
    table = runs.table()
    assert list(table["layers"]) == ["", "", "3", "3"] and list(table["samplers"][:2]) == [str(s) for s in samplers]
    for row, sampler in enumerate(samplers):
        plain = score_task(dlens.trace(model), "trio-code", n=2, max_new_tokens=4, sampler=sampler)
        assert runs.answers(row)["texts"] == list(plain.texts)
        # Each is compared with the model as it is, decoding in the same way.
        assert runs.entries[row].unit == runs.entries[row].baseline == runs.entries[row + 2].baseline


@pytest.mark.parametrize("workers", [Local(1, threads=1)], ids=["local"])
def test_other_processes_find_the_same(model: dlens.Model, tmp_path: Path, workers: Any) -> None:
    factor = 0.5
    plain = dlens.trace(model)
    traces = [plain.skip([3]), plain.hook("blocks.2.hook_resid_post", lambda value, hook: value * factor)]
    here, there = (
        small(traces, tmp_path / name, texts=TEXTS, workers=who).table().drop(columns="seconds")
        for name, who in (("here", 0), ("there", workers))
    )
    # With another number of threads a sum may be added up in another order.
    pd.testing.assert_frame_equal(here, there, check_exact=False, rtol=1e-5)


def test_a_failure_is_told_and_tried_again(model: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = dlens.trace(model)

    def broken(value, hook):
        raise RuntimeError("a hook that fails")

    with pytest.warns(
        UserWarning, match="1 of 3 units failed, the first with .*a hook that fails; the others are whole"
    ):
        runs = small([trace.skip([3]), trace.hook("resid_post", broken)], tmp_path)
    table = runs.table()
    assert list(table["error"] != "") == [False, True] and np.isnan(table["value"][1]) and table["value"][0] >= 0
    [failure] = runs.failed.values()
    assert "a hook that fails" in failure.traceback
    with pytest.warns(UserWarning, match="units failed"):
        assert len(dlens.load_sweep(tmp_path).failed) == 1 and small(trace.hook("resid_post", broken), tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing asked": ({"task": None}, "a sweep that asks nothing"),
    "no such task": ({"task": "maths"}, "task 'maths'"),
    "no such layer": ({"traces": lambda trace: trace.skip([40])}, "layer 40"),
    "a step beyond": ({"traces": lambda trace: trace.skip([3], steps=[99])}, "99"),
    "no such workers": ({"workers": "cloud"}, "workers='cloud'"),
    "a seed twice": ({"seeds": [1, 1]}, "seeds=[1, 1]"),
    "one problem": ({"n": 1}, "n=1"),
    "texts that are one": ({"texts": "Once"}, "texts='Once'"),
    "a flag that is none": ({"retry": "no"}, "retry='no'"),
    "an answer too long": ({"max_new_tokens": 5000}, "5000 are to come"),
    "another sampler": ({"sampler": dlens.samplers.Autoregressive()}, "Autoregressive for trio/diffusion"),
    "no draws": ({"texts": TEXTS, "draws": 0}, "draws=0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_starts(
    model: dlens.Model, tmp_path: Path, case: str, computing: list[str]
) -> None:
    changed, came = REFUSED[case]
    make = changed.get("traces", lambda trace: trace.skip([3]))
    with unchecked(), pytest.raises((ValueError, IndexError)) as caught:
        small([make(dlens.trace(model))], tmp_path / "out", **{k: v for k, v in changed.items() if k != "traces"})
    assert_three_parts(str(caught.value), came)
    assert computing == [] and not (tmp_path / "out" / "results").exists()


def test_a_model_that_no_other_process_can_load_is_refused(model: dlens.Model, tmp_path: Path) -> None:
    made = dlens.load(model.module, tokenizer=model.tokenizer)
    with pytest.raises(TypeError, match="was made of a torch module and cannot be pickled"):
        small(dlens.trace(made).skip([3]), tmp_path, workers=1)
    assert small(dlens.trace(made).skip([3]), tmp_path).table()["value"][0] >= 0


def test_the_plan_is_plain(model: dlens.Model, tmp_path: Path) -> None:
    small(dlens.grid(model, layers=[[2], [3]]), tmp_path)
    [first, _] = json.loads((tmp_path / "sweep.json").read_text())
    assert first["labels"] == {"layers": "2"} and first["measure"] == "accuracy" and first["model"] == "trio/diffusion"


ALONE = """
import sys
from pathlib import Path

import pandas as pd

import dlens
from dlens.workers import Local

folder = Path(sys.argv[1])
trace = dlens.trace(dlens.load(folder / "llada", trust_remote_code=True)).skip([1])
here, there = (
    dlens.sweep(trace, texts=[[5, 6, 7, 8], [9, 8, 7]], out=folder / name, workers=who).table().drop(columns="seconds")
    for name, who in (("here", 0), ("there", Local(1, threads=1)))
)
pd.testing.assert_frame_equal(here, there, check_exact=False, rtol=1e-5)
print(len(there), there["error"].tolist())
"""


def test_code_of_a_checkpoint_goes_with_its_folder(tmp_path: Path) -> None:
    save_llada(tmp_path)
    # In a process that no other test has changed, as code is part of what a model is.
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("1 ['']\n", 0), done.stderr

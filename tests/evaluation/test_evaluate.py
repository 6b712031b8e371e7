"""`dlens.evaluate`: numbers as retention finds them, what is returned, and what is refused before anything runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens import tasks
from dlens.evaluation import evaluate as evaluation
from dlens.evaluation.evaluate import Evaluation, TaskScore
from tests.evaluation.harness import small_tasks
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked

PROBLEMS = 6


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems of trio-math in the form of GSM8K; the first five of such a file are worked examples."""
    drawn = [(p.prompt.removeprefix("Question: ").removesuffix("\nAnswer:"), p.answer) for p in hard(PROBLEMS)]
    shown = [(f"What is {n} + 1?", f"#### {n + 1}") for n in range(5)]
    lines = [json.dumps({"question": question, "answer": answer.strip()}) for question, answer in shown + drawn]
    path = tmp_path_factory.mktemp("sums") / "test.jsonl"
    path.write_text("\n".join(lines))
    return path


def hard(n: int) -> tuple[tasks.Problem, ...]:
    return tasks.get("trio-math").problems(n, seed=5)


def test_a_skip_costs_what_retention_says(ar: dlens.Model, sums: Path) -> None:
    task = tasks.from_file(sums, "gsm8k", shots=0)
    asked = replace(task, entries=dict(list(task.entries.items())[5:]))
    kept = dlens.retention(ar, [3, 4, 5], asked, PROBLEMS, max_new_tokens=56)
    given: dict[str, Any] = {"shots": 0, "max_new_tokens": 56, "batch_size": PROBLEMS}
    before = dlens.evaluate(ar, [f"gsm8k:{sums}"], **given)
    after = dlens.evaluate(dlens.trace(ar).skip([3, 4, 5]), [f"gsm8k:{sums}"], **given)
    found = [each.value("gsm8k", filter="strict-match") for each in (before, after)]
    assert found == [kept.baseline, kept.accuracy] and found[0] > found[1]
    assert (before.plan, after.plan) == ((), ("skip layers 3, 4, 5",))


def test_likelihoods_change_with_what_is_done_to_the_model(diffusion: dlens.Model, tmp_path: Path) -> None:
    model, folder = shallow(diffusion, 3), small_tasks(tmp_path)
    given: dict[str, Any] = {"include_path": folder, "draws": 4}
    plain, again = (dlens.evaluate(model, ["small_rolling"], **given) for _ in range(2))
    skipped = dlens.evaluate(dlens.trace(model).skip([1]), ["small_rolling"], **given)
    other = dlens.evaluate(model, ["small_rolling"], seed=1, **given)
    bits = [each.value("small_rolling") for each in (plain, again, skipped, other)]
    assert bits[0] == bits[1] and len(set(bits)) == 3
    few = dlens.evaluate(model, ["small_choice", "small_rolling"], limit=2, **given)
    assert [(each.task, each.n) for each in few.scores] == [("small_choice", 2), ("small_rolling", 2)]
    assert len(few.results["samples"]["small_choice"]) == 2
    assert isnan(few.scores[1].stderr) and few.scores[0].stderr >= 0


def test_prompts_are_written_with_the_chat_template_where_asked(ar: dlens.Model, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(ar.tokenizer)
    tokenizer.chat_template = "{% for each in messages %}<{{ each.role }}>{{ each.content }}{% endfor %}<answer>"
    model, folder = replace(shallow(ar, 1), tokenizer=tokenizer), small_tasks(tmp_path)
    asked = []
    for chat in (False, True):
        found = dlens.evaluate(model, ["small_choice"], include_path=folder, limit=1, chat=chat)
        (sample,) = found.results["samples"]["small_choice"]
        asked.append(sample["arguments"][0][0])
    assert asked[1] == f"<user>{asked[0]}<answer>" and asked[0].startswith("Once upon a time")


def test_what_is_returned_is_a_table() -> None:
    scores = (TaskScore("a", "acc", "none", 0.5, 0.1, 4), TaskScore("a", "acc_norm", "none", 0.75, float("nan"), 4))
    found = Evaluation("m", ("skip layers 3",), scores, {})
    assert found.value("a") == 0.5 and found.value("a", "acc_norm") == 0.75
    assert found.table()[0] == {"task": "a", "metric": "acc", "filter": "none", "value": 0.5, "stderr": 0.1, "n": 4}
    assert str(found).splitlines()[:2] == ["m; skip layers 3", "task  metric    filter  value  stderr  n"]
    with pytest.raises(KeyError, match="no number of 'a' with metric 'f1' and filter None; expected .*; see .table"):
        found.value("a", "f1")


def test_no_source_of_random_numbers_is_seeded_anew(ar: dlens.Model, tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore

    before = state()
    dlens.evaluate(shallow(ar, 1), ["small_choice"], include_path=small_tasks(tmp_path))
    assert state() == before


def call(**given: Any) -> Callable[[dlens.Model], Any]:
    return lambda model: dlens.evaluate(model, **{"tasks": ["small_choice"]} | given)


REFUSED: dict[str, tuple[Callable[[dlens.Model], Any], str]] = {
    "no tasks": (call(tasks=[]), "tasks=[]"),
    "a word": (call(tasks="gsm8k"), "tasks='gsm8k'"),
    "no names": (call(tasks=[3]), "tasks=[3]"),
    "limit": (call(limit=0), "limit=0"),
    "a share": (call(limit=0.5), "limit=0.5"),
    "shots": (call(shots=-1), "shots=-1"),
    "draws": (call(draws=0), "draws=0"),
    "chat": (call(chat=True), "chat=True with"),
    "no folder": (call(include_path="nowhere"), "include_path='nowhere'"),
    "twice": (call(tasks=["gsm8k:a.jsonl", "gsm8k:b.jsonl"]), "tasks=['gsm8k:a.jsonl', 'gsm8k:b.jsonl']"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str, ar: dlens.Model) -> None:
    action, came = REFUSED[case]
    with unchecked(), refused(ar, ValueError, came):
        action(ar)


def test_tasks_that_are_not_there_are_refused(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    # lm-eval's own tasks are thousands of files.
    def small(include_path: Any, include_defaults: bool = False) -> TaskManager:
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", small)
    with refused(ar, ValueError, "task 'small_choise'"):
        dlens.evaluate(ar, ["small_choise"], include_path=[small_tasks(tmp_path)])
    with refused(ar, FileNotFoundError, "no file"):
        dlens.evaluate(ar, ["gsm8k:nowhere.jsonl"])


def test_code_needs_a_clear_yes(ar: dlens.Model) -> None:
    path = Path(__file__).parents[1] / "tasks" / "data" / "humaneval.jsonl"
    with refused(ar, ValueError, "humaneval runs programs that the model writes"):
        dlens.evaluate(ar, [f"humaneval:{path}"])


def test_without_lm_eval_it_is_refused(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    with refused(ar, ImportError, "lm-eval is not installed"):
        dlens.evaluate(ar, ["small_choice"])

"""The shipped yaml: prompts of dlens.tasks, what is right scores 1, and one answer to all what arithmetic says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from dlens import tasks
from dlens.evaluation.shipped import SHIPPED, dataset, shipped_file, write_task
from dlens.tasks.benchmark import Benchmark
from dlens.tasks.files import FORMATS
from tests.evaluation.harness import Told, asked, run, small_tasks

DATA = Path(__file__).parents[1] / "tasks" / "data"


def held(format: str) -> Path:
    (path,) = DATA.glob(f"{format}.json*")
    return path


def opened(format: str) -> Benchmark:
    return tasks.from_file(held(format), format, allow_code=True)


def told(format: str, folder: Path, answer: Any) -> dict[str, Any]:
    write_task(folder, format, held(format))
    return run(Told(answer), folder, format, confirm_run_unsafe_code=True)


def numbers(found: dict[str, Any], task: str) -> set[float]:
    """The values of every metric and filter of a task."""
    row = found["results"][task]
    return {value for key, value in row.items() if "," in key and "_stderr" not in key}


@pytest.mark.parametrize("format", FORMATS)
def test_an_oracle_is_asked_as_dlens_asks_and_is_always_right(format: str, tmp_path: Path) -> None:
    problems = {problem.prompt: problem for problem in opened(format).problems(3)}
    seen: list[str] = []

    def oracle(request: Instance) -> str:
        seen.append(request.args[0])
        return problems[request.args[0]].answer.removesuffix("[DONE]")

    assert numbers(told(format, tmp_path, oracle), format) == {1.0}
    assert sorted(seen) == sorted(problems)


CONSTANT = {
    "gsm8k": (" It is so.\n#### 36", 1 / 3),
    "math500": (" It is $\\boxed{0.5}$.", 1 / 3),
    "humaneval": ("    return 0\n", 0.0),
    "mbpp": ("def double(n):\n    return n + n\n", 1 / 3),
    "mbpp_sanitized": ("```python\ndef double(n):\n    return n + n\n```", 1 / 3),
}


@pytest.mark.parametrize("format", FORMATS)
def test_one_answer_to_all_is_right_as_often_as_it_is(format: str, tmp_path: Path) -> None:
    answer, share = CONSTANT[format]
    assert numbers(told(format, tmp_path, lambda request: answer), format) == {share}


def test_a_choice_by_likelihood_is_right_as_often_as_it_is(tmp_path: Path) -> None:
    folder = small_tasks(tmp_path)
    right = run(Told(lambda request: -float(request.idx)), folder, "small_choice")
    wrong = run(Told(lambda request: float(request.idx)), folder, "small_choice")
    assert numbers(right, "small_choice") == {1.0} and numbers(wrong, "small_choice") == {0.0}
    assert [len(answer) for answer in asked(right, "small_choice")] == [1] * 9


def test_answers_end_where_the_task_says(tmp_path: Path) -> None:
    for format in FORMATS:
        requests: list[dict[str, Any]] = []
        told(format, tmp_path, lambda request, requests=requests: requests.append(request.args[1]) or "")
        stop = {"gsm8k": "Question:", "math500": "Problem:", "humaneval": "\ndef"}.get(format, "[DONE]")
        assert all(stop in request["until"] and not request["do_sample"] for request in requests)


def test_examples_may_come_from_another_file(tmp_path: Path) -> None:
    other = tmp_path / "train.jsonl"
    lines = held("gsm8k").read_text(encoding="utf-8").splitlines()
    other.write_text("\n".join(lines[:5]), encoding="utf-8")
    found = dataset("gsm8k", str(held("gsm8k")), examples=str(other), version=3.0)
    assert [len(found["test"]), len(found["examples"])] == [3, 5]
    assert list(found["test"]["question"]) == [opened("gsm8k").entries[f"gsm8k/{n}"]["question"] for n in (5, 6, 7)]


def test_names_with_a_file_and_without() -> None:
    assert shipped_file("mbpp_sanitized:a:b.json") == ("mbpp_sanitized", Path("a:b.json"))
    assert shipped_file("gsm8k") is None and shipped_file("arc:test.jsonl") is None
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == set(FORMATS)

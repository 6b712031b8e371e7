"""MATH-500: Minerva's prompt, where an answer ends, and which results are equal."""

import threading
from pathlib import Path

import pytest

from dlens import tasks
from dlens.tasks.formats.math500 import Math500, same_result

PATH = Path(__file__).parents[1] / "data" / "math500.jsonl"
TASK = Math500.read(PATH)
HALF = TASK.problem("test/prealgebra/1.json")


def test_the_prompt() -> None:
    assert Math500.read(PATH, shots=0).problem(HALF.key).prompt == (
        "Problem:\nWhat is $\\frac{1}{3} + \\frac{1}{6}$?\n\nSolution:"
    )
    assert HALF.prompt.startswith(
        "Problem:\nFind the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.\n\n"
    )
    parts = HALF.prompt.split("\n\nProblem:\n")
    assert len(parts) == 5 and parts[-1] == "What is $\\frac{1}{3} + \\frac{1}{6}$?\n\nSolution:"
    assert all(part.endswith("$. I hope it is correct.") and "Solution: " in part for part in parts[:-1])


def test_the_prompt_is_that_of_the_harness() -> None:
    import ast
    from importlib.util import find_spec

    spec = find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    # Its module asks for another version of a parser than is installed, so it is read and not imported.
    source = Path(spec.origin).parent / "tasks" / "minerva_math" / "utils.py"
    (samples,) = [
        node for node in ast.parse(source.read_text()).body if getattr(node, "name", "") == "list_fewshot_samples"
    ]
    assert isinstance(samples, ast.FunctionDef) and isinstance(samples.body[0], ast.Return)
    held = ast.literal_eval(samples.body[0].value)
    shots = [f"Problem:\n{shot['problem']}\n\nSolution: {shot['solution']}\n\n" for shot in held]
    assert HALF.prompt.startswith("".join(shots))


def test_examples_may_come_from_a_file_and_are_not_asked() -> None:
    task = tasks.from_file(PATH, "math500", shots=1, examples=PATH)
    assert {p.key for p in task.problems(2)} == {p.key for p in TASK.problems(3)} - {HALF.key}
    assert task.problems(1)[0].prompt.startswith("Problem:\nWhat is $\\frac{1}{3}")


@pytest.mark.parametrize(
    ("continuation", "right"),
    [
        (" It is $\\boxed{\\frac{1}{2}}$.", True),
        (" It is $\\boxed{0.5}$.", True),
        (" It is $\\boxed{\\frac{2}{4}}$.", True),
        (" The final answer is $1/2$. I hope it is correct.", True),
        (" It is $\\boxed{\\frac{1}{3}}$.", False),
        (" It is $\\boxed{2}$.\n\nProblem:\nWhat is it?\n\nSolution: $\\boxed{\\frac{1}{2}}$", False),
        ("Problem: $\\boxed{\\frac{1}{2}}$", False),
        (" I do not know.", False),
    ],
)
def test_the_rules(continuation: str, right: bool) -> None:
    assert TASK.score(HALF, continuation) == right


def test_results_are_compared_in_any_thread() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_result("(-2,2)", "$\\boxed{(-2, 2)}$")))
    thread.start()
    thread.join()
    assert found == [True] and not same_result("(-2,2)", "$\\boxed{[-2, 2]}$")


def test_without_math_verify_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlens.tasks.formats.math500.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"math500:.* compares .*, which is not installed; expected .*; pip install"):
        tasks.from_file(PATH, "math500")

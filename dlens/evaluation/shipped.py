"""The benchmarks that dlens brings yaml for, read from files that the user has, and how their answers are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlens.tasks import from_file
from dlens.tasks.benchmark import until
from dlens.tasks.files import FORMATS
from dlens.tasks.formats.humaneval import STOPS as HUMANEVAL_STOPS
from dlens.tasks.formats.math500 import same_result
from dlens.tasks.formats.mbpp import code_of
from dlens.tasks.running_code import passes

__all__ = ["SHIPPED", "dataset", "score_humaneval", "score_math500", "score_mbpp", "shipped_file", "write_task"]

SHIPPED = Path(__file__).parent / "tasks"
"""The folder of the yaml files, which a file of one's own may include."""


def shipped_file(task: str) -> tuple[str, Path] | None:
    """The benchmark and the file that `gsm8k:test.jsonl` names; None for a name of another kind.

    Examples:
        >>> shipped_file("gsm8k:test.jsonl")[0], shipped_file("arc_easy")
        ('gsm8k', None)
    """
    name, colon, path = task.partition(":")
    return (name, Path(path)) if colon and name in FORMATS else None


def write_task(folder: Path, name: str, path: Path) -> None:
    """Write yaml for a shipped benchmark and a file of the user's; JSON is yaml too."""
    own = {"include": str(SHIPPED / f"{name}.yaml"), "task": name, "dataset_kwargs": {"path": str(path.absolute())}}
    (folder / f"{name}.yaml").write_text(json.dumps(own), encoding="utf-8")


def dataset(format: str, path: str, examples: str | None = None, **_: Any) -> dict[str, Any]:
    """What lm-eval reads of a benchmark: the problems that are asked, and the worked examples.

    Args:
        format: of `dlens.tasks.from_file`.
        path: the file.
        examples: the file that worked examples come from; the same, or the format's, by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "test.jsonl"
        >>> lines = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(7)]
        >>> _ = file.write_text("\\n".join(map(json.dumps, lines)))
        >>> {split: len(entries) for split, entries in dataset("gsm8k", str(file)).items()}
        {'test': 2, 'examples': 5}
    """
    from datasets import Dataset

    # Whether programs may run is asked by lm-eval, before any does.
    task = from_file(path, format, examples=examples, allow_code=True)
    splits = {"test": [task.entries[key] for key in task.keys("test")], "examples": task.shots}
    return {name: Dataset.from_list([dict(entry) for entry in entries]) for name, entries in splits.items()}


def score_math500(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """Whether an answer comes to the right result, as mathematics.

    Examples:
        >>> score_math500({"answer": "2"}, [r"It is $\\boxed{4/2}$."])
        {'math_verify': 1}
    """
    return {"math_verify": int(same_result(doc["answer"], results[0]))}


def score_humaneval(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """Whether a completed function passes its tests.

    Examples:
        >>> doc = {"prompt": "def one():\\n", "test": "def check(f):\\n    assert f() == 1", "entry_point": "one"}
        >>> score_humaneval(doc, ["    return 1"])
        {'pass_at_1': 1}
    """
    completed = doc["prompt"] + until(results[0], HUMANEVAL_STOPS)
    return {"pass_at_1": int(passes(completed, checks=f"{doc['test']}\ncheck({doc['entry_point']})"))}


def score_mbpp(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, int]:
    """Whether a program passes its tests.

    Examples:
        >>> doc = {"test_setup_code": "", "test_list": ["assert one() == 1"]}
        >>> score_mbpp(doc, ["def one():\\n    return 2"])
        {'pass_at_1': 0}
    """
    checks = "\n".join([doc["test_setup_code"], *doc["test_list"]])
    return {"pass_at_1": int(passes(code_of(results[0]), checks=checks))}

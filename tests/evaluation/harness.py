"""What tests of lm-eval share: a folder of small tasks, and models that are always right or always say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

__all__ = ["Told", "asked", "run", "small_tasks"]

DOCS = [
    {"text": "Once upon a time there was a little girl. She went to the", "choices": [" park", " zebra quantum"]},
    {"text": "The dog was happy because he found a ", "choices": ["big bone in the garden", "seven"]},
    {"text": "Tom has 5 pens. He buys 2. Now he has", "choices": [" 7 pens", " 9 cats", " no"]},
    {"text": "", "choices": ["A cat", " sat on a mat"]},
]
READ = """
import json, pathlib
from datasets import Dataset

def docs(**_):
    lines = json.loads(pathlib.Path(__file__).with_name("docs.json").read_text())
    return {"test": Dataset.from_list(lines)}
"""
SHARED = """
custom_dataset: !function small_docs.docs
test_split: test
metadata: {version: 1.0}
"""
CHOICE = """
task: small_choice
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: small_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}{{choices[0]}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
"""


def small_tasks(folder: Path) -> Path:
    """A folder with a choice task and a rolling task on the same few texts."""
    (folder / "docs.json").write_text(json.dumps(DOCS))
    (folder / "small_docs.py").write_text(READ)
    (folder / "choice.yaml").write_text(CHOICE + SHARED)
    (folder / "rolling.yaml").write_text(ROLLING + SHARED)
    return folder


def run(lm: LM, folder: Path, *tasks: str, **given: Any) -> dict[str, Any]:
    """What lm-eval finds of a model on tasks of a folder; no random source is seeded anew."""
    seeds: Any = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))
    manager = TaskManager(include_path=str(folder), include_defaults=False)  # pyright: ignore
    evaluate: Any = simple_evaluate
    found = evaluate(lm, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **seeds, **given)
    return found


def asked(found: dict[str, Any], task: str) -> list[Any]:
    """What a model answered to the requests of a task, one after the other."""
    return [answer for sample in found["samples"][task] for answer in sample["resps"]]


class Told(LM):
    """A model that answers what it is told to: likelihoods and texts by the request."""

    def __init__(self, answer: Callable[[Instance], Any]) -> None:
        super().__init__()
        self.answer = answer

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [(self.answer(request), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return [self.answer(request) for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [self.answer(request) for request in requests]

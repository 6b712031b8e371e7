"""Answers and losses of the compressed trio: `python -m recipes.compression.measure [--device cuda]` writes answers.json.

Nothing is judged here: the file holds which problems each model solves, and its loss of each text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import dlens
from dlens.compression.compress import compressed
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import losses_of
from dlens.tracing.probes.calibration import calibration_texts

MODELS = ("trio/ar", "trio/diffusion", "trio/ar-init")
TASKS = ("trio-math", "trio-code")
PROBLEMS, SEEDS, ROWS = 200, (0, 1, 2), 12
RECIPES = {
    "3 bits, RTN": dlens.Recipe(method="rtn", bits=3, group=64),
    "3 bits, GPTQ": dlens.Recipe(method="gptq", bits=3, group=64, rows=ROWS),
    "3 bits, GPTQ, outlier kept": dlens.Recipe(method="gptq", bits=3, group=64, rows=ROWS, protect="outlier"),
    "half, even": dlens.Recipe(method="wanda", sparsity=0.5, rows=ROWS),
    "half, early sparser": dlens.Recipe(method="wanda", sparsity=0.5, allocation="early-sparser", rows=ROWS),
    "half, late sparser": dlens.Recipe(method="wanda", sparsity=0.5, allocation="late-sparser", rows=ROWS),
    "half, OWL": dlens.Recipe(method="wanda", sparsity=0.5, allocation="owl", rows=ROWS),
    "half, AlphaPruning": dlens.Recipe(method="wanda", sparsity=0.5, allocation="alpha", rows=ROWS),
}
SKIPPED = 2
OUT = Path(__file__).parent / "answers.json"


@dataclass(frozen=True)
class Asked:
    """What a model is asked.

    Args:
        batch_size: problems decoded together.
    """

    batch_size: int

    def of(self, trace: dlens.Trace) -> dict[str, Any]:
        """Which problems of each task are solved, as a text of 0 and 1, and the loss of each shipped text."""
        parts = [text_canvases(trace.model, [text]) for text in calibration_texts()]
        solved = {
            task: score_task(trace, task, PROBLEMS, batch_size=self.batch_size, progress=False).correct for task in TASKS
        }
        return {
            "losses": [round(loss.value, 6) for loss in losses_of(trace, parts)],
            "solved": {task: "".join(str(int(right)) for right in own) for task, own in solved.items()},
        }


def asked(model: dlens.Model, ask: Asked) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The model as it is, with each recipe and seed, and with blocks skipped, before and after rounding."""
    yield "as it is", 0, ask.of(dlens.trace(model))
    plan = dlens.plan_skip(model, SKIPPED, rule="greedy-loss")
    yield "skip", 0, ask.of(dlens.trace(model).skip(plan)) | {"layers": list(plan.layers)}
    for name, recipe in RECIPES.items():
        for seed in SEEDS if recipe.rows else SEEDS[:1]:
            small = compressed(model, replace(recipe, seed=seed), progress=False)
            yield name, seed, ask.of(dlens.trace(small))
            if name == "3 bits, GPTQ":
                yield f"{name}, skip", seed, ask.of(dlens.trace(small).skip(plan))


def main(device: str = "cpu", batch_size: int = 16) -> None:
    """Measure, and write answers.json.

    Args:
        device: where the models run.
        batch_size: problems decoded together.
    """
    found: dict[str, Any] = {}
    for name in MODELS:
        model = dlens.load(name, device_map=device) if device != "cpu" else dlens.load(name)
        for what, seed, answers in tqdm(asked(model, Asked(batch_size)), name):
            found.setdefault(name, {}).setdefault(what, {})[str(seed)] = answers
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import tyro

    torch.set_grad_enabled(False)
    tyro.cli(main)

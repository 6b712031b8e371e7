"""What a model shows: losses, accuracies, and the two depth profiles, all measured with dlens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlens import Model, Trace, load, profile, trace
from dlens.findings.scores.loss import text_loss
from dlens.samplers import Autoregressive, LLaDA, Sampler
from dlens.tasks import get, names
from recipes.trio.objective import Run
from recipes.trio.tokens import ROW
from recipes.trio.weights import plain_copy

__all__ = ["accuracy", "numbers", "validation_texts"]

# Held-out documents of each domain.
_TEXTS = 24
_BATCH = 64


def numbers(run: Run, model: Any, tokenizer: Any, data: Path, problems: int) -> dict[str, Any]:
    """Losses by domain, task accuracies, cosine and energy share by layer, of a model as it goes to disk."""
    loaded = load(plain_copy(model), tokenizer=tokenizer, family=run.family)
    texts = validation_texts(loaded, data, at_most=_TEXTS)
    every = [ids for group in texts.values() for ids in group]
    rows = profile(loaded, every, inputs="clean", batch_size=_BATCH).table()
    return {
        "loss": {domain: text_loss(trace(loaded), group, batch_size=_BATCH).value for domain, group in texts.items()},
        "accuracy": {task: sum(accuracy(trace(loaded), task, problems)) / problems for task in names() if problems},
        "cosine": [row["cosine"] for row in rows],
        "top_share": [row["top_share"] for row in rows],
        "top_channel": [row["top_channel"] for row in rows],
    }


def validation_texts(model: Model, data: Path, at_most: int | None = None) -> dict[str, list[list[int]]]:
    """The first held-out documents of each domain, as token ids, each cut to a row."""
    texts: dict[str, list[list[int]]] = {}
    for line in (data / "valid.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        ids = model.tokenizer(entry["text"], truncation=True, max_length=ROW)["input_ids"]
        texts.setdefault(entry["domain"], []).append(ids)
    return {domain: group[:at_most] for domain, group in sorted(texts.items())}


def accuracy(tracer: Trace, task: str, problems: int, seed: int = 0, sampler: Sampler | None = None) -> Sequence[bool]:
    """Whether each of so many test problems is solved, greedily.

    Args:
        tracer: a model with whatever operations it has.
        task: its name.
        problems: how many.
        seed: of the problems.
        sampler: by default LLaDA's where there are masks, whatever the shift, so that models compare.
    """
    asked = get(task)
    drawn = asked.problems(problems, seed)
    usual = LLaDA() if tracer.model.family.objective == "diffusion" else Autoregressive()
    record = tracer.generate(
        [problem.prompt for problem in drawn], asked.max_new_tokens, sampler=sampler or usual, progress=False
    )
    return [asked.score(problem, text) for problem, text in zip(drawn, record.text, strict=True)]

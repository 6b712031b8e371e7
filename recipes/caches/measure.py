"""Answers and streams of the trio under caches, for docs/caches.md: `python -m recipes.caches.measure`.

It writes answers.json, part by part. Nothing is judged there: which problems are solved, FLOPs as counted, how alike
streams are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

import dlens
from dlens import caches
from dlens.findings.scores.accuracy import score_task
from dlens.samplers import LLaDA
from dlens.tracing.planning.kv_cache import Caching
from dlens.tracing.probes.calibration import calibration_texts
from recipes.caches.streams import moved

__all__ = ["CACHES", "MODELS", "OUT", "main"]

Part = Literal["answers", "streams"]

MODELS = ("trio/diffusion", "trio/ar-init")
CACHES: Mapping[str, Caching] = {
    "none": "auto",
    "Prefix": caches.Prefix(),
    "Dual": caches.Dual(),
    "Delayed": caches.Delayed(),
    "Adaptive": caches.Adaptive(),
}
TASK, SKIPPED = "trio-code", 2
PROBLEMS = {"trio/diffusion": 96, "trio/ar-init": 64}
NEW, BLOCK, STEPS = 32, 8, 16
PROMPTS, TOKENS = 24, 24
OUT = Path(__file__).parent / "answers.json"


def sampler() -> LLaDA:
    """Two tokens a step, in blocks of eight."""
    return LLaDA(steps=STEPS, block_length=BLOCK)


def answers(model: dlens.Model) -> dict[str, Any]:
    """Which problems are solved with each cache, without and with blocks skipped, as a text of 0 and 1; FLOPs."""
    layers = _skipped(model)
    found: dict[str, Any] = {"layers": layers}
    for name, cache in tqdm(CACHES.items(), model.name):
        own = found.setdefault(name, {})
        for what, trace in (("as it is", dlens.trace(model)), ("skip", dlens.trace(model).skip(layers))):
            ask = partial(score_task, trace, TASK, PROBLEMS[model.name], max_new_tokens=NEW, sampler=sampler())
            scores = ask(cache=cache, count_flops=True, progress=False)
            solved = "".join(str(int(right)) for right in scores.correct)
            own[what] = {"solved": solved, "flops": scores.flops}
    return found


def streams(model: dlens.Model) -> dict[str, Any]:
    """How far caches move the stream, on the canvases of runs without one."""
    return moved(model, _skipped(model), _prompts(model, PROMPTS), NEW, sampler(), CACHES)


def _skipped(model: dlens.Model) -> list[int]:
    """Blocks by the published rule, its threshold off."""
    return list(dlens.plan_skip(model, SKIPPED, threshold=-1, progress=False).layers)


def _prompts(model: dlens.Model, n: int) -> list[list[int]]:
    """The first tokens of shipped texts, equally many of each."""
    rows = [model.tokenizer(text)["input_ids"][:TOKENS] for text in calibration_texts()]
    return [row for row in rows if len(row) == TOKENS][:n]


def write(part: Part, model: str, numbers: dict[str, Any]) -> None:
    """Put a part of one model into answers.json; others stay as they are."""
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    found.setdefault(part, {})[model] = numbers
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main(parts: tuple[Part, ...] = ("answers", "streams"), models: tuple[str, ...] = MODELS, threads: int = 2) -> None:
    """Measure, and write answers.json.

    Args:
        parts: which of them.
        models: of the trio.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    ask = {"answers": answers, "streams": streams}
    for name in models:
        model = dlens.load(name)
        for part in parts:
            write(part, name, ask[part](model))


if __name__ == "__main__":
    import tyro

    tyro.cli(main)

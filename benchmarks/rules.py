"""What the plan of each rule keeps, at equal compute: `python -m benchmarks.rules trio/ar trio/diffusion`."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

import dlens
from benchmarks.rows import Row, publish
from dlens.findings.effects.retention import Retention
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.intervals import mean_interval
from dlens.findings.scores.loss import text_loss
from dlens.findings.skipping.plan_skip import Rule
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["main"]

_LEVELS = 4
_RANDOM = 3
_BLOCK = 8


@dataclass(frozen=True)
class Judged:
    """One plan of one model.

    Args:
        rule: that chose it.
        plan: what is skipped, in words.
        loss: nats a token more than the whole model's, with its 95 % interval over texts.
        kept: accuracy beside the whole model's.
    """

    rule: str
    plan: str
    loss: tuple[float, ...]
    kept: Retention

    def cells(self, model: str) -> list[str]:
        """The columns of the table."""
        more, low, high = self.loss
        kept = f"{self.kept.retained:.2f} ({self.kept.low:.2f} to {self.kept.high:.2f})"
        saved = f"{self.kept.flops_saved:.1%}"
        return [model, self.rule, self.plan, saved, f"{more:+.2f} ({low:+.2f} to {high:+.2f})", kept]

    def rows(self, model: str) -> list[Row]:
        """The same as numbers."""
        what = f"{self.rule}: {self.plan}"
        more, low, high = self.loss
        return [
            Row(f"{what}; loss", model, more, None, low, high, "nats more"),
            Row(f"{what}; accuracy retained", model, self.kept.retained, None, self.kept.low, self.kept.high),
            Row(f"{what}; FLOPs saved", model, 100 * self.kept.flops_saved, unit="%"),
        ]


def main(
    models: tuple[str, ...] = ("trio/ar", "trio/diffusion", "trio/ar-init"),
    /,
    blocks: tuple[int, ...] = (2, 3),
    task: str = "trio-code",
    problems: int = 100,
    draws: int = 8,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Choose on half of the shipped texts; judge by the loss on the other half and by a task.

    Args:
        models: anything `dlens.load` takes.
        blocks: how many are skipped.
        task: whose problems are solved.
        problems: of the task.
        draws: how often each text is masked.
        seed: of the random plans, the masks and the problems.
        json: where to write the numbers as JSON.
    """
    rows: list[Row] = []
    print("| model | plan by | skipped | FLOPs saved | loss, more than whole | accuracy retained |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in models:
        model = dlens.load(name)
        sampler = dlens.samplers.LLaDA(block_length=_BLOCK) if model.family.objective == "diffusion" else None
        options: dict[str, Any] = {"task": task, "n": problems, "seed": seed, "sampler": sampler, "progress": False}
        whole = score_task(dlens.trace(model), **options)
        before = _losses(dlens.trace(model), draws, seed)
        for n in blocks:
            for rule, plan in _plans(model, n, seed):
                kept = dlens.retention(model, plan, baseline=whole, **options)
                rise = mean_interval(_losses(_applied(model, plan), draws, seed) - before)
                judged = Judged(rule, _words(plan), tuple(map(float, rise)), kept)
                rows += judged.rows(name)
                print(f"| {' | '.join(judged.cells(name))} |", flush=True)
    if json is not None:
        publish(
            rows,
            json,
            " ".join(["benchmarks.rules", *models]),
            blocks=" ".join(map(str, blocks)),
            task=task,
            problems=problems,
            draws=draws,
            seed=seed,
        )


def _plans(model: dlens.Model, n: int, seed: int) -> Iterator[tuple[str, Any]]:
    """The plan of every rule, of a schedule of equal compute, and random ones."""
    texts = calibration_texts()[::2]
    for rule in get_args(Rule):
        # No least similarity, so that every plan skips as much.
        threshold = -1.0 if rule == "cosine" else None
        yield rule, dlens.plan_skip(model, n, rule, threshold=threshold, prompts=texts, seed=seed, progress=False)
    if model.family.objective == "diffusion":
        yield "schedule", dlens.plan_schedule(model, n / model.n_layers, _LEVELS, prompts=texts, progress=False)
    drawn = random.Random(seed)
    for _ in range(_RANDOM):
        yield "random", sorted(drawn.sample(range(model.n_layers), n))


def _words(plan: Any) -> str:
    if isinstance(plan, dlens.SkipSchedule):
        return "; ".join(f"to noise {hi:g}: {list(own)}" for hi, own in zip(plan.levels[1:], plan.layers, strict=True))
    return ", ".join(map(str, sorted(plan.layers if isinstance(plan, dlens.SkipPlan) else plan)))


def _applied(model: dlens.Model, plan: Any) -> dlens.Trace:
    whole = dlens.trace(model)
    return plan.apply(whole) if isinstance(plan, dlens.SkipSchedule) else whole.skip(plan)


def _losses(chain: dlens.Trace, draws: int, seed: int) -> Float[np.ndarray, " text"]:
    """The loss of each text that chose nothing."""
    return np.array([text_loss(chain, [text], draws=draws, seed=seed).value for text in calibration_texts()[1::2]])


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))

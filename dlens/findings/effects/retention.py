"""How much of a task's accuracy is left after a change, what the change saves, and how sure both are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any, final

from dlens.checks import check_fields, quoted
from dlens.findings.effects.applied import applied, blocks_saved, flops_saved, plan_notes
from dlens.findings.scores.accuracy import Scores, refuse_other_answers, score_problems
from dlens.findings.scores.decoding import Decoding
from dlens.findings.scores.intervals import LEVEL, mcnemar, ratio_interval
from dlens.ops.base.given import as_index
from dlens.samplers import Sampler
from dlens.tasks import Problem, Task, get
from dlens.tracing.planning.kv_cache import Caching

__all__ = ["Retention", "asked_of_both", "enough", "judged", "retention"]

METHOD = f"{LEVEL:.0%} interval of the ratio by the score of paired answers; p by McNemar's exact test"


@final
@dataclass(frozen=True, eq=False)
class Retention:
    """The accuracy of a changed model relative to the same model as it is, on the same problems.

    Args:
        model, task, n, seed: what was asked of whom; the seed draws problems and sampling noise.
        plan: the operations, with all that was found when the run started.
        baseline: share of problems that the model as it is solves.
        accuracy: share that the changed model solves.
        retained: accuracy / baseline; NaN where nothing is solved before.
        low, high: 95 % interval of `retained` over problems; NaN where there is none. It does not
            cover other training runs of the same model.
        p_value: two-sided, that both solve equally many.
        method: how the interval and the test were made.
        flops_saved: share of the floating-point operations that the changed run saves, as counted;
            NaN where they were not counted.
        blocks_saved: skipped blocks as a share of all, as papers on skipping count compute.
        time_ratio: wall-clock time of decoding, changed over unchanged, of one run each: no benchmark, as it
            holds whatever else the machine did; runs may differ in length.
        before, after: the answers of both.
        notes: what a reader must know to read the numbers.

    Examples:
        >>> import dlens
        >>> kept = dlens.retention("trio/ar", [5], n=2, max_new_tokens=4)
        >>> row = kept.row()
        >>> row["model"], row["n"], row["blocks_saved"]
        ('trio/ar', 2, 0.0625)
        >>> print(kept)
        trio/ar on trio-math: 0 of 2 solved, 0 before; no share retained, p = 1; skip layers 5
    """

    model: str
    task: str
    n: int
    seed: int
    plan: tuple[Mapping[str, Any], ...]
    baseline: float
    accuracy: float
    retained: float
    low: float
    high: float
    p_value: float
    method: str
    flops_saved: float
    blocks_saved: float
    time_ratio: float
    before: Scores = field(repr=False)
    after: Scores = field(repr=False)
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.retention make it", Scores)

    def row(self) -> dict[str, Any]:
        """The numbers, as a row of a table; the operations in words."""
        words = "; ".join(entry["words"] for entry in self.plan)
        left_out = ("plan", "before", "after", "notes", "method")
        return {"plan": words} | {name: value for name, value in vars(self).items() if name not in left_out}

    def __str__(self) -> str:
        solved = f"{sum(self.after.correct)} of {self.n} solved, {sum(self.before.correct)} before"
        interval = "no interval" if isnan(self.low) else f"{100 * self.low:.0f} to {100 * self.high:.0f} %"
        share = "no share retained" if isnan(self.retained) else f"{100 * self.retained:.0f} % retained ({interval})"
        head = f"{self.model} on {self.task}: {solved}; {share}, p = {self.p_value:.2g}"
        return "; ".join([head, *(entry["words"] for entry in self.plan)])

    __repr__ = __str__


def retention(
    model: Any,
    plan: Any = None,
    task: Task | str = "trio-math",
    n: int = 64,
    seed: int = 0,
    *,
    baseline: Scores | None = None,
    split: str = "test",
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    cache: Caching = "auto",
    batch_size: int = 16,
    progress: bool = True,
) -> Retention:
    """Task accuracy after a change, relative to the same model as it is, on the same problems.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        plan: what is applied after those: a SkipPlan, a SkipSchedule, or layers to skip.
        task: a task, or its name.
        n: problems; at least 2.
        seed: draws the problems and the sampler's random numbers.
        baseline: the model as it is, scored before by `dlens.findings.scores.accuracy.score_task` with the same
            arguments, so that many changes share it; scored here by default.
        split: of the problems, "test" or "train".
        sampler, max_new_tokens, cache, batch_size, progress: see `dlens.findings.scores.decoding.Decoding`; a
            cache is that of both.

    Returns:
        `.baseline`, `.accuracy`, `.retained`, `.low`, `.high`, `.n` and more.

    Raises:
        ValueError: before anything is computed: no change, an unknown task, too few problems, or a
            baseline on other problems.

    Examples:
        >>> import dlens
        >>> kept = dlens.retention("trio/ar", [3, 5], n=4, max_new_tokens=4)
        >>> kept.n, kept.blocks_saved, 0 < kept.flops_saved < 0.125
        (4, 0.125, True)
    """
    bare, chain = applied(model, plan)
    task, problems = asked_of_both(task, n, seed, split, baseline)
    decoding = Decoding(sampler, max_new_tokens, cache, batch_size, seed, progress).of(task)
    refuse_other_answers(bare.model, task, decoding, baseline)
    saved = blocks_saved(chain, decoding.planned_steps(bare.model))
    # First what may not fit, so that it is refused before anything is computed.
    after = score_problems(chain, task, problems, decoding, count_flops=True)
    before = score_problems(bare, task, problems, decoding) if baseline is None else baseline
    found = judged(bare.model.name, before, after, seed, saved)
    return replace(found, notes=(*plan_notes(bare, plan), *found.notes))


def judged(model: str, before: Scores, after: Scores, seed: int, saved: float = nan) -> Retention:
    """The comparison of answers that were scored before.

    Args:
        model: whose answers they are.
        before, after: to the same problems.
        seed: of the problems.
        saved: skipped blocks as a share of all.
    """
    low, high = ratio_interval(before.correct, after.correct)
    return Retention(
        model=model,
        task=after.task,
        n=after.n,
        seed=seed,
        plan=after.plan,
        baseline=before.accuracy,
        accuracy=after.accuracy,
        retained=after.accuracy / before.accuracy if any(before.correct) else nan,
        low=low,
        high=high,
        p_value=mcnemar(before.correct, after.correct),
        method=METHOD,
        flops_saved=flops_saved(after),
        blocks_saved=saved,
        time_ratio=after.seconds / before.seconds,
        before=before,
        after=after,
        notes=tuple(dict.fromkeys((*_caveats(before), *after.notes, *after.unfired))),
    )


def _caveats(before: Scores) -> tuple[str, ...]:
    return () if any(before.correct) else ("the model as it is solves no problem, so nothing can be retained",)


def asked_of_both(
    task: Task | str, n: int, seed: int, split: str, baseline: Scores | None
) -> tuple[Task, tuple[Problem, ...]]:
    """The task, and the problems that a model answers as it is and changed.

    Args:
        task: a task, or its name.
        n, seed, split: which problems.
        baseline: answers of the model as it is, where they were scored before.

    Raises:
        ValueError: an unknown task, too few problems, or a baseline on others, which cannot be paired.
    """
    task = get(task)
    if baseline is not None and not isinstance(baseline, Scores):
        raise ValueError(
            f"baseline={quoted(baseline)}; expected the scores of the model as it is; get them with "
            f"dlens.findings.scores.accuracy.score_task"
        )
    problems = tuple(task.problems(enough(n), seed, split))
    if baseline is not None and (baseline.task != task.name or baseline.problems != problems):
        raise ValueError(
            f"a baseline of {baseline.n} problems of {baseline.task} for {len(problems)} of {task.name}; expected the "
            f"same problems, as answers are compared in pairs; score it with the same task, n, seed and split"
        )
    return task, problems


def enough(n: int) -> int:
    """A number of problems that gives an interval.

    Raises:
        ValueError: it is too small.
    """
    if as_index(n, "n") < 2:
        raise ValueError(f"n={n}; expected at least 2 problems, as one gives no interval; ask for 64")
    return n

"""Retention is what the scores of both runs say, and is refused where it cannot be asked."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, nan
from typing import Any

import pytest

import dlens
from dlens.findings.effects.retention import judged
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.intervals import mcnemar, ratio_interval
from dlens.samplers import Autoregressive
from dlens.tasks import Problem
from dlens.tasks.trio_code import TrioCode
from tests.findings.answers import answers


def test_it_is_what_both_runs_score(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).skip([12])
    kept = dlens.retention(trace, n=6, seed=2, max_new_tokens=32)
    before = score_task(dlens.trace(ar), "trio-math", 6, 2, max_new_tokens=32)
    after = score_task(trace, "trio-math", 6, 2, max_new_tokens=32, count_flops=True)
    assert (kept.before.texts, kept.after.texts) == (before.texts, after.texts)
    assert (kept.baseline, kept.accuracy, kept.n) == (before.accuracy, after.accuracy, 6)
    assert kept.retained == pytest.approx(after.accuracy / before.accuracy if any(before.correct) else nan, nan_ok=True)
    assert (kept.low, kept.high) == pytest.approx(ratio_interval(before.correct, after.correct), nan_ok=True)
    assert kept.p_value == mcnemar(before.correct, after.correct)
    assert after.flops is not None and after.saved_flops is not None
    assert kept.flops_saved == after.saved_flops / (after.flops + after.saved_flops)
    assert 0 < kept.flops_saved < kept.blocks_saved == 1 / 16
    assert kept.time_ratio > 0 and kept.row()["plan"] == "skip layers 12"


def test_a_baseline_is_shared(diffusion: dlens.Model) -> None:
    options: dict[str, Any] = {"n": 4, "max_new_tokens": 4}
    baseline = score_task(dlens.trace(diffusion), "trio-math", **options)
    kept = dlens.retention(diffusion, [3], baseline=baseline, **options)
    assert kept.before is baseline
    assert kept.after.texts == dlens.retention(diffusion, [3], **options).after.texts
    for other in ({"seed": 1}, {"task": "trio-code"}, {"n": 5}):
        with pytest.raises(ValueError, match="a baseline of 4 problems of trio-math for .*; expected the same"):
            dlens.retention(diffusion, [3], baseline=baseline, **options | other)


def test_the_numbers_by_hand() -> None:
    before, after = answers("1111111100"), answers("1111000010", flops=60, saved=20)
    kept = judged("by hand", before, after, seed=0, saved=0.25)
    assert (kept.baseline, kept.accuracy, kept.retained) == (0.8, 0.5, 0.625)
    assert kept.low < 0.625 < kept.high and kept.p_value == mcnemar(before.correct, after.correct) == 0.375
    assert (kept.flops_saved, kept.blocks_saved, kept.time_ratio) == (0.25, 0.25, 1.0)
    assert kept.notes == ()
    interval = f"{100 * kept.low:.0f} to {100 * kept.high:.0f} %"
    words = f"by hand on by hand: 5 of 10 solved, 8 before; 62 % retained ({interval}), p = 0.38"
    assert str(kept) == repr(kept) == words


def test_where_nothing_is_solved_nothing_can_be_retained() -> None:
    kept = judged("by hand", answers("0000"), answers("0100"), seed=0)
    assert "solves no problem" in kept.notes[0] and isnan(kept.low) and "no share retained" in str(kept)


@pytest.mark.parametrize("digits", ["1111", "1000000000"])
def test_few_answers_that_all_agree_have_a_wide_interval(digits: str) -> None:
    kept = judged("by hand", answers(digits), answers(digits), seed=0)
    assert kept.retained == 1 and kept.low < 0.5 and kept.high > 1.5 and kept.notes == ()
    assert "interval of the ratio by the score of paired answers" in kept.method


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "task 'maths'; expected one of", {"task": "maths"}),
        (ValueError, "n=1; expected at least 2 problems", {"n": 1}),
        (IndexError, "layer 16 of trio/ar", {"plan": [16]}),
        (ValueError, "without a plan and without operations", {"plan": None}),
        (ValueError, "LLaDA for trio/ar", {"sampler": dlens.samplers.LLaDA()}),
    ],
)
def test_it_is_refused_before_anything_is_computed(
    error: type[Exception], message: str, options: dict[str, Any], ar: dlens.Model
) -> None:
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(error, match=message):
        dlens.retention(ar, **{"plan": [3], "n": 2} | options)
    # Steps that only the changed run has.
    with pytest.raises(IndexError, match="names step 80"):
        dlens.retention(dlens.trace(ar).skip([3], steps=[80]), n=2)
    handle.remove()
    assert not calls


def test_a_baseline_of_another_run_is_refused(ar: dlens.Model) -> None:
    def scored(trace: Any, **settings: Any) -> Any:
        return score_task(trace, "trio-code", **{"n": 2, "max_new_tokens": 2} | settings)

    own = scored(dlens.trace(ar))
    others = {
        "operations .skip layers 3.": scored(dlens.trace(ar).skip([3])),
        "answers of 3 tokens": scored(dlens.trace(ar), max_new_tokens=3),
        "another model": replace(own, fingerprint="of another"),
        "another tokenizer, family or padding": scored(dlens.trace(replace(ar, honours_padding=False))),
        "other rules of trio-code": score_task(dlens.trace(ar), Strict(), n=2, max_new_tokens=2),
    }
    options: dict[str, Any] = {"task": "trio-code", "n": 2, "max_new_tokens": 2}
    for words, baseline in others.items():
        with pytest.raises(ValueError, match=f"a baseline with .*{words}.*; expected trio/ar as it is, .*; score it"):
            dlens.retention(ar, [5], baseline=baseline, **options)
    assert dlens.retention(ar, [5], baseline=own, **options).n == 2
    drawn = scored(dlens.trace(ar), sampler=Autoregressive(temperature=1.0), batch_size=1)
    with pytest.raises(ValueError, match="a baseline with batches of 1; expected .* and batches of 2; score it"):
        dlens.retention(ar, [5], baseline=drawn, **options, sampler=Autoregressive(temperature=1.0), batch_size=2)


class Strict(TrioCode):
    """The same problems, and no answer is right."""

    def score(self, problem: Problem, continuation: str) -> bool:
        return False

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import dlens
from dlens.findings.effects.applied import applied, blocks_saved, flops_saved, plan_notes, skipped_blocks
from dlens.findings.skipping.plan_skip import SkipPlan
from tests.findings.answers import answers
from tests.refusing import assert_three_parts

TEXTS = ["Once upon a time"]


def test_a_plan_adds_to_what_a_trace_has(diffusion: dlens.Model) -> None:
    bare, chain = applied(dlens.trace(diffusion).swap(2, 3), [5])
    assert bare.ops == () and [op.words() for op in chain.ops] == ["swap layers 2 and 3", "skip layers 5"]


def test_a_trace_is_no_plan(ar: dlens.Model) -> None:
    for function in (applied, skipped_blocks):
        with pytest.raises(ValueError) as caught:
            function(dlens.trace(ar), dlens.trace(ar).skip([3]))
        assert_three_parts(str(caught.value), "plan got a trace of trio/ar")


def test_a_plan_for_another_model_is_noted(ar: dlens.Model) -> None:
    plan = SkipPlan((3,), "cosine", (), (3,), (), "trio/diffusion", ())
    assert plan_notes(dlens.trace(ar), plan) == ("the plan was made for trio/diffusion, not for trio/ar",)
    assert plan_notes(dlens.trace(ar), replace(plan, model="trio/ar")) == () == plan_notes(dlens.trace(ar), [3])


def test_plans_and_schedules_are_applied(ar: dlens.Model, diffusion: dlens.Model) -> None:
    plan = dlens.plan_skip(ar, 2, "block-influence", prompts=TEXTS)
    assert skipped_blocks(applied(ar, plan)[0], plan) == plan.layers
    schedule = dlens.plan_schedule(diffusion, 1 / 16, 2, prompts=TEXTS, progress=False)
    bare, chain = applied(diffusion, schedule)
    assert blocks_saved(chain, 10) == pytest.approx(schedule.share)
    with pytest.raises(ValueError, match="a schedule for trio/diffusion; expected the same blocks at every step"):
        skipped_blocks(bare, schedule)


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda trace: trace.skip([1, 2]).skip([2, 3]), 3 / 16),
        (lambda trace: trace.skip([1], steps="early").skip([1], steps=range(6, 9)), (3 + 3) / 9 / 16),
        (lambda trace: trace.skip([1, 2], noise=(0.25, 0.75)), 1 / 16),
        (lambda trace: trace.ablate([4]), 0),
        (lambda trace: trace.skip([1], part="mlp"), math.nan),
        (lambda trace: trace.skip([1]).repeat(4), math.nan),
    ],
)
def test_blocks_count_by_their_share_of_the_run(change: Any, share: float, diffusion: dlens.Model) -> None:
    assert blocks_saved(change(dlens.trace(diffusion)), 9) == pytest.approx(share, nan_ok=True)


def test_a_comparison_with_itself_is_refused(ar: dlens.Model) -> None:
    for model in (ar, dlens.trace(ar).capture("resid_post")):
        with pytest.raises(ValueError, match="without a plan and without operations; expected something that changes"):
            applied(model, None)


def test_flops_are_a_share_of_those_without_operations(ar: dlens.Model) -> None:
    record = dlens.trace(ar).skip([5]).forward("Once upon a time")
    whole = dlens.trace(ar).forward("Once upon a time")
    assert flops_saved(record) == record.saved_flops / whole.flops and flops_saved(whole) == 0
    assert flops_saved(answers("10", flops=30, saved=10)) == 0.25
    assert math.isnan(flops_saved(answers("10")))

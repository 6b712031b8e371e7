"""A third is a third of the same run, whatever the kind of model and the batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import dlens
from dlens import tasks
from dlens.findings.scores.accuracy import score_task
from dlens.samplers import LLaDA

MATH = tasks.get("trio-math")


def test_thirds_of_a_denoising_run(diffusion: dlens.Model) -> None:
    options: dict[str, Any] = {"n": 3, "seed": 1, "max_new_tokens": 6, "sampler": LLaDA(steps=6, block_length=6)}
    found = dlens.phases(diffusion, [3, 9], **options)
    assert (found.layers, list(found.thirds)) == ((3, 9), ["early", "middle", "late"])
    for third, steps in (("early", (0, 1)), ("middle", (2, 3)), ("late", (4, 5))):
        changed = dlens.trace(diffusion).skip([3, 9], steps=steps)
        assert found.thirds[third].after.texts == score_task(changed, MATH, **options).texts
        assert found.thirds[third].before is found.thirds["early"].before
        assert found.thirds[third].blocks_saved == pytest.approx(2 / 16 / 3)
    assert [row["third"] for row in found.table()] == list(found.thirds)


def test_thirds_of_an_answer(ar: dlens.Model) -> None:
    widths: list[int] = []
    handle = ar.module.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[-1]), with_kwargs=True
    )
    found = dlens.phases(ar, [2], n=2, max_new_tokens=24, batch_size=1)
    handle.remove()
    assert min(widths) > 1, "every step computes the whole sequence"
    problems, before = MATH.problems(2), found.thirds["early"].before
    assert before.problems == problems and len(set(before.lengths)) > 1
    for third, part in (("early", (0, 1)), ("middle", (1, 2)), ("late", (2, 3))):
        for i, problem in enumerate(problems):
            low, high = (number * before.lengths[i] // 3 for number in part)
            steps = range(low, 24 if third == "late" else high)
            changed = dlens.trace(ar).skip([2], steps=steps).generate(problem.prompt, 24, cache="off", progress=False)
            assert found.thirds[third].after.texts[i] == changed.text[0]
            assert found.thirds[third].after.correct[i] == MATH.score(problem, changed.text[0])


def test_answers_of_unlike_lengths_do_not_share_a_batch(ar: dlens.Model) -> None:
    options: dict[str, Any] = {"n": 4, "max_new_tokens": 10}
    scores = score_task(dlens.trace(ar), MATH, **options)
    found = dlens.phases(ar, [12], baseline=replace(scores, lengths=(4, 9, 5, 10)), **options)
    words = [[entry["words"] for entry in kept.after.plan] for kept in found.thirds.values()]
    assert words == [
        ["skip layers 12 at steps 0:1", "skip layers 12 at steps 0:3"],
        ["skip layers 12 at steps 1:3", "skip layers 12 at steps 3:6"],
        ["skip layers 12 at steps 3:10", "skip layers 12 at steps 6:10"],
    ]
    assert found.thirds["late"].after.problems == scores.problems


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "2 decoding steps of trio/diffusion; expected at least 3", {"max_new_tokens": 2}),
        (ValueError, "got no layers; expected at least one of 16", {"plan": []}),
        (IndexError, "layer 16 of trio/diffusion", {"plan": [16]}),
        (ValueError, "n=1; expected at least 2 problems", {"n": 1}),
        (ValueError, "task 'maths'; expected one of", {"task": "maths"}),
    ],
)
def test_it_is_refused_before_anything_is_computed(
    error: type[Exception], message: str, options: dict[str, Any], diffusion: dlens.Model
) -> None:
    calls: list[int] = []
    handle = diffusion.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(error, match=message):
        dlens.phases(diffusion, **{"plan": [3], "n": 2} | options)
    with pytest.raises(ValueError, match="phases with a trace that has operations"):
        dlens.phases(dlens.trace(diffusion).skip([1]), [3])
    handle.remove()
    assert not calls

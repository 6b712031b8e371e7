"""Steps that a run has, and steps that it does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens import trace
from dlens.tracing.planning.plan import plan_run
from tests.refusing import STORY, refused


@pytest.mark.parametrize("steps", [8, -9, [0, 8], range(7, 9), slice(0, 9), slice(8, None), slice(-9, None)], ids=str)
@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_a_step_beyond_the_run(name: str, steps: Any, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    step = {"range(7, 9)": 8, "slice(0, 9, None)": 9, "slice(8, None, None)": 8, "[0, 8]": 8}.get(str(steps))
    step = step if step is not None else (steps if isinstance(steps, int) else -9)
    for chain in (trace(model).skip(3, steps=steps), trace(model).capture("resid_post", steps=steps)):
        with refused(model, IndexError, f"names step {step}"):
            chain.generate(STORY, 8)


def test_a_step_beyond_a_forward_and_no_step_at_all(diffusion: dlens.Model) -> None:
    with refused(diffusion, IndexError, "steps=1 names step 1"):
        trace(diffusion).skip(3, steps=1).forward(STORY)
    with refused(diffusion, IndexError, "steps=0:4 names step 1"):
        trace(diffusion).capture("resid_post", steps=range(4)).forward(STORY)
    with refused(diffusion, ValueError, "names no step of 8"):
        trace(diffusion).skip(3, steps=slice(1, 1)).generate(STORY, 8)
    with refused(diffusion, ValueError, "steps='early' of a forward, or a run of one step"):
        trace(diffusion).skip(3, steps="early").forward(STORY)


def test_an_operation_acts_at_the_steps_that_it_names(diffusion: dlens.Model) -> None:
    seen: list[int] = []
    trace(diffusion).hook("logits", lambda value, hook: seen.append(hook.step), steps=slice(-3, None)).generate(
        STORY, 8
    )
    assert seen == [5, 6, 7]


def test_a_plan_for_other_prompts_has_their_positions(diffusion: dlens.Model) -> None:
    chain = trace(diffusion).steer([0.0] * 192, layers=1, tokens=[1]).knockout([2], source=[0]).skip([3])
    plan = plan_run(chain.ops, chain.target, 1, torch.tensor([[True, True, True]]))
    other = plan.of(torch.tensor([[False, True, True, True], [True, True, True, True]]))
    steered, hidden, skipped = other.planned
    assert steered.fixed is not None and hidden.fixed_sources is not None
    assert steered.fixed.int().tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
    assert hidden.fixed_sources.int().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert hidden.fixed is skipped.fixed is skipped.fixed_sources is None
    assert [planned.said for planned in other.planned] == [planned.said for planned in plan.planned]
    there = other.to(torch.device("meta")).planned
    assert [mask.device.type for mask in (there[0].fixed, there[1].fixed_sources) if mask is not None] == ["meta"] * 2
    plain = plan_run(chain.ops[2:], chain.target, 1, torch.tensor([[True]]))
    assert plain.of(torch.tensor([[True, True]])) is plain is plain.to(torch.device("meta"))

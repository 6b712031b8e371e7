"""The size of a run before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import pytest
import torch

import dlens
from dlens import trace
from dlens.checks import quoted
from dlens.ops.base.target import RunShape
from dlens.samplers import Autoregressive, Dream, LLaDA
from dlens.samplers.sampler import Denoiser
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.planning.shape import run_shape
from tests.refusing import STORY, Action, refused
from tests.unchecked import unchecked


@final
@dataclass(frozen=True)
class Planning(Denoiser):
    """Plans what it is told."""

    planned: Any

    def planned_steps(self, new_tokens: int, held: int = 0) -> int:
        return self.planned

    def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
        raise AssertionError("nothing is decoded")


REFUSED: dict[str, tuple[str, Action]] = {
    "block": ("block_length=3", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(block_length=3))),
    "more steps than tokens": ("steps=9", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(steps=9))),
    "steps": ("steps=3 in 2", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(steps=3, block_length=4))),
}


@pytest.mark.parametrize("case", REFUSED)
def test_samplers_that_do_not_fit_the_number_of_tokens(diffusion: dlens.Model, case: str) -> None:
    came, action = REFUSED[case]
    with unchecked(), refused(diffusion, ValueError, came):
        action(diffusion)


@pytest.mark.parametrize("planned", [None, 0, -1, 2.5, "2", True, 10**12, torch.tensor([2, 3])], ids=repr)
def test_a_plan_that_is_no_number_of_steps_is_refused(diffusion: dlens.Model, planned: Any) -> None:
    with unchecked(), refused(diffusion, ValueError, f"Planning.planned_steps returned {quoted(planned)}"):
        trace(diffusion).skip([3]).generate(STORY, 4, sampler=Planning(planned))


def test_a_plan_may_be_any_whole_number(diffusion: dlens.Model) -> None:
    assert type(run_shape(diffusion, as_batch(diffusion, [[5]]), 4, Planning(torch.tensor(3))).n_steps) is int


def test_a_forward_computes_its_prompts_once(ar: dlens.Model) -> None:
    assert run_shape(ar, as_batch(ar, [[5, 6, 7], [8]])) == RunShape("forward", 1, 2, 3, 3)


def test_decoding_computes_no_last_token(ar: dlens.Model) -> None:
    shape = run_shape(ar, as_batch(ar, [[5, 6, 7], [8]]), 4, Autoregressive())
    assert shape == RunShape("decoding", 4, 2, width=6, prompt_width=3)


def test_denoising_plans_for_the_row_with_most_masks(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    batch = as_batch(diffusion, [[5, mask, 6], [mask, mask]])
    assert run_shape(diffusion, batch, 4, LLaDA()) == RunShape("denoising", 6, 2, width=7, prompt_width=3)
    assert run_shape(diffusion, batch, 4, Dream(steps=3)).n_steps == 3

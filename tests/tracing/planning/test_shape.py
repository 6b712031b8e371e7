"""The size of a run before it starts."""

from __future__ import annotations

import pytest

import dlens
from dlens import trace
from dlens.samplers import LLaDA
from tests.refusing import STORY, Action, refused
from tests.unchecked import unchecked

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

"""Settings of a generation that contradict the model or each other."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens import trace
from dlens.samplers import Autoregressive, Dream, LLaDA
from dlens.tracing.settings import sampler_for
from tests.refusing import STORY, Action, refused
from tests.unchecked import unchecked

SAMPLERS: dict[str, tuple[str, Action]] = {
    "AR sampler": ("Autoregressive for trio/d", lambda m: trace(m).generate(STORY, 8, sampler=Autoregressive())),
    "no tokens": ("max_new_tokens=0", lambda m: trace(m).generate(STORY, 0)),
    "fewer than none": ("max_new_tokens=-1", lambda m: trace(m).generate(STORY, -1, infill=True)),
    "half a token": ("max_new_tokens 4.0", lambda m: trace(m).generate(STORY, 4.0)),
    "no seed": ("seed None", lambda m: trace(m).generate(STORY, 4, seed=None)),
    "no limit": ("capture_limit None", lambda m: trace(m).generate(STORY, 4, capture_limit=None)),
    "no limit of a forward": ("capture_limit None", lambda m: trace(m).forward(STORY, capture_limit=None)),
    "a negative seed": ("seed=-1", lambda m: trace(m).generate(STORY, 4, seed=-1)),
    "nothing to call": ("on_step=5", lambda m: trace(m).generate(STORY, 4, on_step=5)),  # pyright: ignore
    "nothing to set": ("cancel=5", lambda m: trace(m).generate(STORY, 4, cancel=5)),  # pyright: ignore
    "a number for a point": ("hook point 5", lambda m: trace(m).capture(5)),  # pyright: ignore
    "a third of a forward": ("steps='late' of a forward", lambda m: trace(m).skip([3], steps="late").forward(STORY)),
    "a third of two steps": (
        "steps='early' of a run of 2",
        lambda m: trace(m).skip([3], steps="early").generate(STORY, 2),
    ),
    "infinity to add": ("scale=inf", lambda m: trace(m).steer(torch.ones(192), 3, float("inf"))),
    "nothing to add": ("vector holds 1 numbers", lambda m: trace(m).steer([float("nan")] + [0.0] * 191, 3)),
    "infinity to set": ("value holds 1 numbers", lambda m: trace(m).ablate(3, 5, float("inf"))),
    "a required cache": ("cache='require' on trio/diffusion", lambda m: trace(m).generate(STORY, 4, cache="require")),
}


@pytest.mark.parametrize("case", SAMPLERS)
def test_a_run_that_cannot_be(diffusion: dlens.Model, case: str) -> None:
    came, action = SAMPLERS[case]
    with unchecked(), refused(diffusion, ValueError, came):
        action(diffusion)


AR_RUNS: dict[str, tuple[str, Action]] = {
    "denoiser": ("LLaDA for trio/ar", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA())),
    "other denoiser": ("Dream for trio/ar", lambda m: trace(m).generate(STORY, 8, sampler=Dream())),
    "no tokens": ("max_new_tokens=0", lambda m: trace(m).generate(STORY, 0)),
    "infill": ("infill=True", lambda m: trace(m).generate(STORY, 8, infill=True)),
    "nothing to infill": ("infill=True", lambda m: trace(m).generate(STORY, 0, infill=True)),
    "unknown cache": ("cache='on'", lambda m: trace(m).generate(STORY, 8, cache="on")),  # pyright: ignore
}


@pytest.mark.parametrize("case", AR_RUNS)
def test_a_decoding_run_that_cannot_be(ar: dlens.Model, case: str) -> None:
    came, action = AR_RUNS[case]
    with unchecked(), refused(ar, ValueError, came):
        action(ar)


def test_the_sampler_of_the_family_where_none_is_named(ar: dlens.Model, diffusion: dlens.Model) -> None:
    assert sampler_for(ar, None) == Autoregressive() and sampler_for(diffusion, None) == LLaDA()
    named = LLaDA(steps=4)
    assert sampler_for(diffusion, named) is named


def test_no_cache_may_be_asked_for_where_there_is_none(diffusion: dlens.Model) -> None:
    asked, plain = (trace(diffusion).generate(STORY, 4, cache=cache) for cache in ("off", "auto"))
    assert torch.equal(asked.tokens, plain.tokens) and asked.flops == plain.flops and asked.computed is None
    assert asked.settings["cache"] == "off" and asked.notes == plain.notes


def test_settings_stand_in_the_record(diffusion: dlens.Model) -> None:
    record = trace(diffusion).generate(STORY, 4, sampler=LLaDA(steps=2), seed=3)
    assert record.settings == {
        "new_tokens": 4,
        "sampler": repr(LLaDA(steps=2)),
        "seed": 3,
        "infill": False,
        "cache": "auto",
    }

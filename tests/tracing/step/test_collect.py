"""Captures are those of plain hooks, each AR position from the step that first computed it."""

from __future__ import annotations

from typing import Any

import torch

import dlens
from dlens.samplers import LLaDA
from tests.reference import block_outputs, rebuilt
from tests.tracing.plain import DECODED, NEW, PROMPTS, plain_run


def test_captures_are_those_of_plain_hooks(model: dlens.Model, plain: Any) -> None:
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW)
    with block_outputs(plain) as seen:
        expected = plain_run(model, plain)
    real = ~record.is_pad
    assert record.dims("resid_post") == ("step", "layer", "batch", "position", "d_model")
    values = torch.stack(seen).unflatten(0, (NEW, model.n_layers))
    assert torch.equal(record["resid_post"][:, :, real], values[:, :, real])
    assert torch.equal(record["logits"][:, real], torch.stack(expected.logits)[:, real])
    assert record["resid_post"][:, :, ~real].abs().max() == 0


def test_guidance_captures_the_conditional_half_of_one_step(model: dlens.Model, plain: Any) -> None:
    sampler = LLaDA(guidance=1.5, steps=4)
    record = dlens.trace(model).skip([3]).capture("logits").generate(PROMPTS, NEW, sampler=sampler)
    expected = plain_run(model, rebuilt(model.module, [i for i in range(16) if i != 3]), sampler)
    real = ~record.is_pad
    assert record.n_steps == len(expected.logits) == 4
    assert torch.equal(record["logits"][:, real], torch.stack(expected.logits)[:, real])


def test_positions_keep_the_value_of_the_step_that_first_computed_them(ar: dlens.Model) -> None:
    vector = torch.ones(ar.d_model)
    trace = dlens.trace(ar).steer(vector, layers=3, steps=[4]).capture("resid_post", layers=[3])
    record = trace.generate(PROMPTS, DECODED, cache="off")
    cached = trace.generate(PROMPTS, DECODED)
    width = record.is_prompt.shape[1] - DECODED
    assert torch.allclose(record["resid_post"][:, :, :width], cached["resid_post"][:, :, :width], atol=1e-4, rtol=1e-4)
    some = dlens.trace(ar).capture("resid_post", layers=[3], steps=range(2, 5)).generate(PROMPTS, DECODED)
    assert some.coords("resid_post")["position"] == [width + 1, width + 2, width + 3]
    whole = dlens.trace(ar).capture("resid_post", layers=[3]).generate(PROMPTS, DECODED)
    assert torch.equal(some["resid_post"], whole["resid_post"][:, :, width + 1 : width + 4])

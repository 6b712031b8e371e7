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


def test_chosen_positions_and_types(diffusion: dlens.Model) -> None:
    trace, mask = dlens.trace(diffusion), diffusion.family.mask_token_id
    whole = trace.capture("resid_post", "pattern", layers=[3]).generate(PROMPTS[:2], 4)
    chosen = {"layers": [3], "tokens": "masked", "dtype": "bfloat16"}
    record = trace.capture("resid_post", "pattern", **chosen).generate(PROMPTS[:2], 4)
    masked = record.canvas == mask
    values = record["resid_post"][:, 0]
    assert values.dtype == record["pattern"].dtype == torch.bfloat16
    assert torch.equal(values[masked], whole["resid_post"][:, 0][masked].bfloat16())
    padded = record.is_pad.expand_as(masked)
    assert values[~masked & ~padded].isnan().all() and (values[padded] == 0).all()
    rows, kept = record["pattern"][:, 0].mT, whole["pattern"][:, 0].mT
    assert torch.equal(rows.movedim(-1, 2)[masked], kept.movedim(-1, 2)[masked].bfloat16())
    first = trace.capture("embed", tokens=[0]).forward(PROMPTS[:2])
    assert (~first["embed"].isnan()).all(-1).sum(-1).tolist() == (first.is_pad.sum(-1) + 1).tolist()


def test_chosen_positions_of_decoding_are_those_of_the_whole_run(ar: dlens.Model) -> None:
    trace = dlens.trace(ar)
    whole = trace.capture("resid_post", layers=[3]).generate(PROMPTS[:2], 4)["resid_post"]
    for cache in ("auto", "off"):
        record = trace.capture("resid_post", layers=[3], tokens="decoded").generate(PROMPTS[:2], 4, cache=cache)
        values, decoded = record["resid_post"], ~record.is_prompt[:, :-1] & ~record.is_pad[:, :-1]
        assert values[:, record.is_prompt[:, :-1]].isnan().all()
        assert (values[:, decoded] - whole[:, decoded]).abs().max() < 1e-3

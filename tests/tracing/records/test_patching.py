"""Patches from other runs: what they change, and where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens import trace
from dlens.samplers import LLaDA, Threshold
from tests.refusing import STORY, assert_three_parts, refused
from tests.tracing.plain import DECODED, NEW, PROMPTS


@pytest.mark.parametrize("at", ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"])
def test_patch_from_its_own_record_changes_nothing(model: dlens.Model, at: str) -> None:
    record = dlens.trace(model).capture(at, "logits").generate(PROMPTS[:2], NEW // 2)
    again = dlens.trace(model).patch(record, at=at).capture("logits").generate(PROMPTS[:2], NEW // 2)
    assert torch.equal(again.tokens, record.tokens)
    assert torch.equal(again["logits"], record["logits"])


def test_patch_from_a_run_that_ended_before_its_plan_changes_nothing(model: dlens.Model) -> None:
    sampler = Threshold(threshold=0.3)
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW, sampler=sampler)
    assert record.n_steps < record.planned_steps
    patched = dlens.trace(model).patch(record)
    again = patched.capture("logits").generate(PROMPTS, NEW, sampler=sampler)
    assert torch.equal(again["logits"], record["logits"])
    assert dlens.trace(model).patch(record, layers=[3]).generate(PROMPTS, NEW).n_steps == NEW


def test_patch_of_one_layer_reproduces_the_other_run(model: dlens.Model) -> None:
    others = ["Lily had a cat", "The little boy went to a shop and bought the", "Question: Tom has 93 pens."]
    widths = [[len(model.tokenizer(t)["input_ids"]) for t in texts] for texts in (PROMPTS, others)]
    assert widths[0] == widths[1]
    source = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS, NEW)
    patched = dlens.trace(model).patch(source, layers=9).capture("logits").generate(others, NEW)
    new = slice(-NEW, None)
    assert torch.equal(patched["logits"], source["logits"])
    assert torch.equal(patched.tokens[:, new], source.tokens[:, new])
    assert not torch.equal(dlens.trace(model).generate(others, NEW).tokens[:, new], source.tokens[:, new])


def test_patch_under_guidance_from_its_own_record_changes_nothing(model: dlens.Model) -> None:
    sampler = LLaDA(guidance=1.0, steps=4)
    record = dlens.trace(model).capture("resid_post", "logits").generate(PROMPTS[:2], NEW // 2, sampler=sampler)
    again = (
        dlens.trace(model).patch(record, layers=[4]).capture("logits").generate(PROMPTS[:2], NEW // 2, sampler=sampler)
    )
    assert torch.equal(again["logits"], record["logits"])


@pytest.mark.parametrize("ends", [slice(1, 2), slice(None)], ids=["one row", "all rows"])
@pytest.mark.parametrize("at", ["resid_post", "attn_out"])
def test_a_run_that_ended_early_can_be_patched_with_its_own_record(ar: dlens.Model, ends: slice, at: str) -> None:
    def end(value: Tensor, hook: Any) -> Tensor:
        value[ends, -1, ar.eos_token_id] += 1e9 * (hook.step == 3)
        return value

    trace = dlens.trace(ar).hook("logits", end).capture(at, "logits")
    record = trace.generate(PROMPTS, DECODED)
    assert (record.n_steps < DECODED) == (ends == slice(None))
    again = trace.patch(record, at=at).generate(PROMPTS, DECODED)
    assert torch.equal(again.tokens, record.tokens) and torch.equal(again["logits"], record["logits"])
    longer = dlens.trace(ar).patch(record, layers=[3], at=at).generate(PROMPTS, DECODED)
    assert longer.n_steps == DECODED


def test_a_patch_finds_what_was_captured_under_full_names(ar: dlens.Model) -> None:
    names = [f"blocks.{layer}.hook_resid_post" for layer in (3, 5)]
    record = dlens.trace(ar).skip([1]).capture(*names, "logits").generate(PROMPTS, DECODED)
    patched = dlens.trace(ar).patch(record)
    assert "resid_post of layers 3, 5" in str(patched)
    assert torch.equal(patched.capture("logits").generate(PROMPTS, DECODED)["logits"], record["logits"])
    with pytest.raises(ValueError, match=r"lacks layers \[4\]"):
        dlens.trace(ar).patch(record, layers=4)


Patching = Callable[[dlens.Trace, dlens.Record], Any]


PATCHES: dict[str, tuple[str, Any, dict[str, Any], Patching]] = {
    "batch": ("has 1 rows", STORY, {}, lambda t, r: t.patch(r).generate([STORY, STORY], 4)),
    "positions": ("1 rows of 8", STORY, {}, lambda t, r: t.patch(r).generate(STORY, 5)),
    "kind of run": ("of a denoising run", STORY, {}, lambda t, r: t.patch(r).forward(STORY)),
    "padding": ("padd", ["Once", STORY], {}, lambda t, r: t.patch(r).generate([STORY, "Once"], 4)),
    "layers": ("lacks layers [5]", STORY, {"layers": [2, 3]}, lambda t, r: t.patch(r, layers=[2, 5])),
    "steps": ("lacks steps [2, 3]", STORY, {"steps": [0, 1]}, lambda t, r: t.patch(r).generate(STORY, 4)),
}


@pytest.mark.parametrize("case", PATCHES)
def test_a_patch_that_does_not_fit(diffusion: dlens.Model, case: str) -> None:
    came, prompts, captured, action = PATCHES[case]
    record = trace(diffusion).capture("resid_post", **captured).generate(prompts, 4)
    with refused(diffusion, ValueError, came):
        action(trace(diffusion), record)


AR_PATCHES: dict[str, tuple[str, Any, dict[str, Any], Patching]] = {
    "positions": ("holds 4 positions", STORY, {"steps": range(1, 5)}, lambda t, r: t.patch(r).generate(STORY, 8)),
    "padding": ("padd", [STORY, STORY], {}, lambda t, r: t.patch(r).generate([STORY, "Once upon"], 8)),
    "longer": ("1 rows of 11", STORY, {}, lambda t, r: t.patch(r).generate(STORY, 9)),
}


@pytest.mark.parametrize("case", AR_PATCHES)
def test_a_patch_that_does_not_fit_a_decoding_run(ar: dlens.Model, case: str) -> None:
    came, prompts, captured, action = AR_PATCHES[case]
    record = trace(ar).capture("resid_post", **captured).generate(prompts, 8)
    with refused(ar, ValueError, came):
        action(trace(ar), record)


def test_a_patch_from_what_was_not_captured(diffusion: dlens.Model) -> None:
    record = trace(diffusion).capture("resid_post").generate(STORY, 4)
    with pytest.raises(KeyError) as caught:
        trace(diffusion).patch(record, at="mlp_out")
    assert_three_parts(caught.value.args[0], "'mlp_out'")

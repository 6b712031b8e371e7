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
from tests.tracing.plain import DECODED, NEW, PROMPTS, plain_run
from tests.unchecked import unchecked


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


def hooked(plain: Any, runs: Callable[[], Any], at: Callable[[int, Tensor], Tensor]) -> Any:
    """What a run gives while a hook of PyTorch at block 8 changes its output; `at` gets the number of the call."""
    calls: list[int] = []

    def hook(module: Any, args: Any, output: Any) -> Any:
        calls.append(1)
        return at(len(calls) - 1, output.clone())

    handle = plain.model.layers[8].register_forward_hook(hook)
    try:
        return runs()
    finally:
        handle.remove()


def test_a_forward_is_patched_into_a_step_of_denoising(model: dlens.Model, plain: Any) -> None:
    source = dlens.trace(model).capture("resid_post").forward("Tom has a cat and a big red dog.")
    kept = source["resid_post"][4, 0]
    maps: dict[str, Any] = {"from_layers": {8: 4}, "from_steps": {2: 0}, "from_positions": {3: 5, 9: 1}}
    record = dlens.trace(model).patch(source, **maps).capture("logits").generate(PROMPTS[1], NEW)

    def at(step: int, value: Tensor) -> Tensor:
        if step == 2:
            value[0, 3], value[0, 9] = kept[5], kept[1]
        return value

    expected = hooked(plain, lambda: plain_run(model, plain, prompts=[PROMPTS[1]]), at)
    assert torch.equal(record["logits"], torch.stack(expected.logits))
    assert torch.equal(record.tokens, expected.tokens)
    assert not torch.equal(record["logits"], torch.stack(plain_run(model, plain, prompts=[PROMPTS[1]]).logits))


def test_a_step_is_patched_into_others(model: dlens.Model, plain: Any) -> None:
    source = dlens.trace(model).capture("resid_post", layers=[2], steps=[5]).generate(PROMPTS[1], NEW)
    patched = dlens.trace(model).patch(source, from_layers={8: 2}, from_steps={0: 5, 3: 5})
    record = patched.capture("logits").generate(PROMPTS[1], NEW)
    kept = source["blocks.2.hook_resid_post"][0]
    expected = hooked(
        plain,
        lambda: plain_run(model, plain, prompts=[PROMPTS[1]]),
        lambda step, value: kept.clone() if step in (0, 3) else value,
    )
    assert torch.equal(record["logits"], torch.stack(expected.logits))


def test_a_step_is_patched_into_a_forward_of_several_rows(model: dlens.Model, plain: Any) -> None:
    source = dlens.trace(model).capture("resid_post", layers=[6]).generate(PROMPTS[:2], 4)
    rows = [row[~pad].tolist() for row, pad in zip(source.tokens, source.is_pad, strict=True)]
    record = dlens.trace(model).patch(source, from_layers={8: 6}, from_steps={0: 3}).capture("logits").forward(rows)
    kept, real = source["blocks.6.hook_resid_post"][3], ~source.is_pad
    inputs = model.family.inputs(source.tokens, real)

    def run() -> Tensor:
        with torch.no_grad():
            return plain(**inputs).logits

    expected = hooked(plain, run, lambda _, value: torch.where(real[..., None], kept, value))
    assert torch.equal(record["logits"][real], expected[real])


def test_positions_of_decoding_are_patched_as_they_are_computed(ar: dlens.Model, plain_ar: Any) -> None:
    source = dlens.trace(ar).capture("resid_post").forward("Tom has a cat")
    patch = dlens.trace(ar).patch(source, layers=8, from_steps={0: 0, 2: 0}, from_positions={1: 3, 5: 0})
    record = patch.capture("resid_post", layers=[8]).generate("Once upon a time", 4)
    plain_run_of = dlens.trace(ar).capture("resid_post", layers=[8]).generate("Once upon a time", 4)
    values, kept = record["resid_post"][0, 0], source["resid_post"][8, 0]
    assert torch.equal(values[1], kept[3]) and torch.equal(values[5], kept[0])
    assert torch.equal(values[[0, 2, 3]], plain_run_of["resid_post"][0, 0, [0, 2, 3]])


MAPS: dict[str, tuple[type[Exception], str, Callable[[Any, Any], Any]]] = {
    "kind": (ValueError, "is of a forward run", lambda t, r: t.patch(r).generate(STORY, 2)),
    "layer of the record": (ValueError, "lacks layers [5]", lambda t, r: t.patch(r, from_layers={8: 5})),
    "layer here": (IndexError, "layer 99", lambda t, r: t.patch(r, from_layers={99: 4})),
    "step of the record": (ValueError, "names steps [3]", lambda t, r: t.patch(r, from_steps={0: 3})),
    "position of the record": (IndexError, "names position 9", lambda t, r: t.patch(r, from_positions={0: 9})),
    "both": (ValueError, "from_layers={8: 4} beside 8", lambda t, r: t.patch(r, 8, from_layers={8: 4})),
    "no map": (ValueError, "from_steps=[0]", lambda t, r: t.patch(r, from_steps=[0])),
    "length": (
        ValueError,
        "1 rows of 4 computed positions",
        lambda t, r: t.patch(r, from_layers={8: 4}, from_steps={0: 0}).generate(STORY, 2),
    ),
    "position here": (
        IndexError,
        "tokens names position 40",
        lambda t, r: t.patch(r, from_positions={40: 0}).forward(STORY),
    ),
}


@pytest.mark.parametrize("case", MAPS)
def test_maps_that_lead_nowhere(diffusion: dlens.Model, case: str) -> None:
    kind, came, action = MAPS[case]
    source = dlens.trace(diffusion).capture("resid_post", layers=[4, 8]).forward(STORY)
    with unchecked(), refused(diffusion, kind, came):
        action(dlens.trace(diffusion), source)

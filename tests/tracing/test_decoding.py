"""AR decoding of trio/ar: scopes, caches and what is captured, against plain hooks."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import edited, fresh, left_padded

PROMPTS = ["Once upon a time", "The little dog ran to the big red house and", "Question: Rose has 14 stars."]
NEW = 10


@pytest.fixture(scope="module")
def plain(ar: dlens.Model) -> Any:
    return fresh(ar.module)


def greedy(model: dlens.Model, module: Any, **more: Any) -> Tensor:
    ids, mask = left_padded([model.tokenizer(text)["input_ids"] for text in PROMPTS], model.pad_token_id)
    arguments = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0} | more
    return module.generate(input_ids=ids, attention_mask=mask, **arguments)


def test_skip_at_some_steps_recomputes_every_position(ar: dlens.Model, plain: Any) -> None:
    def edit(step: int, layer: int, hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        return hidden if layer in (0, 6) and 3 <= step < 7 else None

    with edited(plain, edit):
        expected = greedy(ar, plain, use_cache=False)
    record = dlens.trace(ar).skip([0, 6], steps=slice(3, 7)).generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, expected)
    assert len(record.notes) == 1 and "KV cache off" in record.notes[0]
    with pytest.raises(ValueError, match="cache='require'"):
        dlens.trace(ar).skip([0, 6], steps=slice(3, 7)).generate(PROMPTS, NEW, cache="require")


def test_mlp_skip_and_steering_at_some_steps_keep_the_cache(ar: dlens.Model, plain: Any) -> None:
    vector = torch.randn(ar.d_model, generator=torch.Generator().manual_seed(0))
    state = {"step": -1}

    def edit(step: int, layer: int, _hidden: Tensor, out: Tensor, _ids: Tensor) -> Tensor | None:
        state["step"] = step
        return out + 2.0 * vector if layer == 4 and step in (0, 5) else None

    def mlp(_module: Any, _args: Any, out: Tensor) -> Tensor | None:
        return torch.zeros_like(out) if state["step"] in (2, 3) else None

    handle = plain.model.layers[9].mlp.register_forward_hook(mlp)
    with edited(plain, edit):
        expected = greedy(ar, plain)
    handle.remove()
    trace = dlens.trace(ar).skip([9], part="mlp", steps=[2, 3]).steer(vector, layers=4, scale=2.0, steps=[0, 5])
    record = trace.generate(PROMPTS, NEW, cache="require")
    assert torch.equal(record.tokens, expected)
    assert record.notes == ()


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_tokens_select_positions_whether_or_not_they_are_cached(ar: dlens.Model, cache: Any) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def watch(value: Tensor, hook: Any) -> None:
        seen.append((hook.step, tuple(value.shape[:2])))

    vector = torch.randn(ar.d_model, generator=torch.Generator().manual_seed(0))
    trace = dlens.trace(ar).hook("blocks.2.hook_resid_post", watch).capture("resid_post", layers=[2])
    clean = dlens.trace(ar).capture("resid_post", layers=[2]).generate(PROMPTS, NEW, cache=cache)
    for tokens, chosen in (("prompt", clean.is_prompt), ("decoded", ~clean.is_prompt & ~clean.is_pad)):
        seen.clear()
        record = trace.steer(vector, layers=1, tokens=tokens).generate(PROMPTS, NEW, cache=cache)
        moved = (record["resid_post"][0] - clean["resid_post"][0]).abs().amax(-1) > 1e-3
        first = int(moved.any(0).nonzero()[0])
        assert bool(chosen[:, first].any())
        assert [step for step, _ in seen] == list(range(NEW))
        width = clean.is_prompt.shape[1] - NEW
        expected = [(3, width)] + [(3, 1 if cache == "auto" else width + step) for step in range(1, NEW)]
        assert [shape for _, shape in seen] == expected


def test_positions_keep_the_value_of_the_step_that_first_computed_them(ar: dlens.Model) -> None:
    vector = torch.ones(ar.d_model)
    trace = dlens.trace(ar).steer(vector, layers=3, steps=[4]).capture("resid_post", layers=[3])
    record = trace.generate(PROMPTS, NEW, cache="off")
    cached = trace.generate(PROMPTS, NEW)
    width = record.is_prompt.shape[1] - NEW
    assert torch.allclose(record["resid_post"][:, :, :width], cached["resid_post"][:, :, :width], atol=1e-4, rtol=1e-4)
    some = dlens.trace(ar).capture("resid_post", layers=[3], steps=range(2, 5)).generate(PROMPTS, NEW)
    assert some.coords("resid_post")["position"] == [width + 1, width + 2, width + 3]
    whole = dlens.trace(ar).capture("resid_post", layers=[3]).generate(PROMPTS, NEW)
    assert torch.equal(some["resid_post"], whole["resid_post"][:, :, width + 1 : width + 4])


def test_captured_logits_cover_every_position(ar: dlens.Model, plain: Any) -> None:
    record = dlens.trace(ar).capture("logits").generate(PROMPTS, NEW)
    assert record.dims("logits") == ("batch", "position", "vocab")
    chosen = record["logits"].argmax(-1)[:, -NEW:]
    assert torch.equal(chosen, record.tokens[:, -NEW:])
    assert torch.equal(record.tokens, greedy(ar, plain))


def test_rows_that_end_are_padding_from_there_on(ar: dlens.Model) -> None:
    end = ar.eos_token_id

    def ends_row_one(value: Tensor, hook: Any) -> Tensor:
        if hook.step == 3:
            value[1, -1, end] = 1e9
        return value

    trace = dlens.trace(ar).hook("hook_logits", ends_row_one).capture("resid_post").measure(dlens.Cosine())
    record = trace.generate(PROMPTS, NEW)
    width = record.tokens.shape[1] - NEW
    assert record.tokens[1, width + 3] == end
    assert record.is_pad[1, width + 4 :].all() and not record.is_pad[0, width:].any()
    assert f"left-padded: {int(record.is_pad[:, :width].sum())} of {record.is_pad.numel()} positions" in repr(record)
    assert record.committed_at[1, width:].tolist() == [0, 1, 2, 3] + [-1] * (NEW - 4)
    assert record["resid_post"][:, 1, width + 4 :].abs().max() == 0
    n = record.measures["cosine"]["n"].sel(state="decoded").isel(layer=0).values
    assert n.tolist() == [0, 3, 3, 3, 3, 2, 2, 2, 2, 2][: len(n)]


def test_a_run_that_ends_early_warns_and_lists_what_did_not_act(ar: dlens.Model) -> None:
    def end_all(value: Tensor, hook: Any) -> Tensor:
        value[..., ar.eos_token_id] += 1e9 * (hook.step == 2)
        return value

    trace = dlens.trace(ar).hook("hook_logits", end_all).skip([3], part="mlp", steps=[5]).capture("resid_post")
    with pytest.warns(dlens.UnfiredWarning, match="skip the mlp of layers 3 at steps 5"):
        record = trace.generate(PROMPTS, NEW)
    assert record.n_steps == 3 and record.planned_steps == NEW
    assert record.unfired == ("skip the mlp of layers 3 at steps 5",)
    assert record["resid_post"].shape[2] == record.tokens.shape[1] - 1


@pytest.mark.parametrize("part", ["block", "attn"])
def test_swap_at_some_steps_of_a_skipped_place_switches_the_cache_off(ar: dlens.Model, plain: Any, part: Any) -> None:
    trace = dlens.trace(ar).skip([2], part=part).swap(2, 7, steps=slice(1, None))
    record = trace.generate(PROMPTS, NEW)
    assert "KV cache off" in record.notes[0]
    assert torch.equal(record.tokens, trace.generate(PROMPTS, NEW, cache="off").tokens)
    with pytest.raises(ValueError, match="cache='require'"):
        trace.swap(7, 9).generate(PROMPTS, NEW, cache="require")
    kept = dlens.trace(ar).skip([2], part=part).swap(3, 7, steps=slice(1, None)).swap(2, 9)
    assert kept.generate(PROMPTS, NEW, cache="require").notes == ()


def test_choices_of_the_generation_config_are_taken_back_and_noted(ar: dlens.Model, plain: Any) -> None:
    model = dlens.load(fresh(ar.module), tokenizer=ar.tokenizer)
    config: Any = model.module.generation_config
    config.repetition_penalty, config.num_beams, config.no_repeat_ngram_size = 1.5, 3, 2
    record = dlens.trace(model).generate(PROMPTS, NEW)
    assert torch.equal(record.tokens, greedy(ar, plain))
    assert record.notes == (
        "not used of the checkpoint's generation config: no_repeat_ngram_size, num_beams, repetition_penalty",
    )


def test_cancelling_after_the_last_token_keeps_the_run(ar: dlens.Model) -> None:
    event = threading.Event()

    def cancel(view: Any) -> None:
        if view.step == NEW - 1:
            event.set()

    record = dlens.trace(ar).generate(PROMPTS, NEW, on_step=cancel, cancel=event)
    assert record.n_steps == NEW


@pytest.mark.parametrize("ends", [slice(1, 2), slice(None)], ids=["one row", "all rows"])
@pytest.mark.parametrize("at", ["resid_post", "attn_out"])
def test_a_run_that_ended_early_can_be_patched_with_its_own_record(ar: dlens.Model, ends: slice, at: str) -> None:
    def end(value: Tensor, hook: Any) -> Tensor:
        value[ends, -1, ar.eos_token_id] += 1e9 * (hook.step == 3)
        return value

    trace = dlens.trace(ar).hook("logits", end).capture(at, "logits")
    record = trace.generate(PROMPTS, NEW)
    assert (record.n_steps < NEW) == (ends == slice(None))
    again = trace.patch(record, at=at).generate(PROMPTS, NEW)
    assert torch.equal(again.tokens, record.tokens) and torch.equal(again["logits"], record["logits"])
    longer = dlens.trace(ar).patch(record, layers=[3], at=at).generate(PROMPTS, NEW)
    assert longer.n_steps == NEW


def test_a_patch_finds_what_was_captured_under_full_names(ar: dlens.Model) -> None:
    names = [f"blocks.{layer}.hook_resid_post" for layer in (3, 5)]
    record = dlens.trace(ar).skip([1]).capture(*names, "logits").generate(PROMPTS, NEW)
    patched = dlens.trace(ar).patch(record)
    assert "resid_post of layers 3, 5" in str(patched)
    assert torch.equal(patched.capture("logits").generate(PROMPTS, NEW)["logits"], record["logits"])
    with pytest.raises(ValueError, match=r"lacks layers \[4\]"):
        dlens.trace(ar).patch(record, layers=4)


def test_negative_positions_count_from_the_end_of_the_run(ar: dlens.Model) -> None:
    vector = torch.full((ar.d_model,), 5.0)
    trace = dlens.trace(ar).steer(vector, layers=1, tokens=[-2]).capture("resid_post", layers=[1])
    clean = dlens.trace(ar).capture("resid_post", layers=[1]).generate(PROMPTS, NEW)["resid_post"]
    moved = (trace.generate(PROMPTS, NEW)["resid_post"] - clean)[0].abs().amax(-1) > 1
    assert moved.nonzero().tolist() == [[row, clean.shape[2] - 1] for row in range(3)]

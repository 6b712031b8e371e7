"""Silent failures of tools like this one: each must be a right answer or a clear error here."""

from __future__ import annotations

import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

import dlens
from dlens.errors import VerificationError
from dlens.findings.scores.intervals import ratio_interval
from dlens.findings.study.claims import claims
from dlens.models import compat
from dlens.samplers import Denoiser, Dream, LLaDA, Threshold, Tokens
from dlens.show.report.summary import lead
from tests.findings.studies import ANSWERED, EVEN, made_model, made_study
from tests.models.conftest import SIZE
from tests.reference import edited, fresh, rebuilt, shallow
from tests.standins import build_remote, save_dream, save_llada
from tests.tape import TapeRecorder
from tests.tracing.records.made import made_record, number_of
from tests.whole.architectures import CONFIGS, build
from tests.whole.caches import Run, cached_run, dual
from tests.whole.operations import IDS

STORY = "Once upon a time"
STORIES = [STORY, "The little dog ran to the big red house and", "Tom has"]
Edit = Any


def ids_of(model: dlens.Model, text: str) -> Tensor:
    return torch.tensor([model.tokenizer(text)["input_ids"]])


def denoised_by_hand(model: dlens.Model, canvas: Tensor, edit: Edit) -> Tensor:
    """[step, batch, position, vocab] of the canvases of a run, under `tests.reference.edited`."""
    module = fresh(model.module)
    with torch.no_grad(), edited(module, edit):
        return torch.stack([module(input_ids=ids, use_cache=False).logits for ids in canvas])


def decoded_by_hand(module: Any, ids: Tensor, new_tokens: int, edit: Edit = lambda *_: None) -> tuple[Tensor, Tensor]:
    """Greedy tokens of one prompt, and the logits [position, vocab] that chose each, without any cache."""
    logits = []
    with torch.no_grad(), edited(module, edit):
        for _ in range(new_tokens):
            logits.append(module(input_ids=ids, use_cache=False).logits[0, -1])
            ids = torch.cat([ids, logits[-1].argmax()[None, None]], dim=1)
    return ids[0], torch.stack(logits)


def skipping(layers: list[int], steps: list[int]) -> Edit:
    return lambda step, layer, hidden, out, ids: hidden if layer in layers and step in steps else None


def test_trap_01_rotary_buffers_of_remote_code_are_lost_in_loading(tmp_path: Path) -> None:
    folder = save_dream(tmp_path)
    model = dlens.load(folder, trust_remote_code=True)
    direct = build_remote(folder)
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        expected = direct(input_ids=ids, attention_mask="full").logits
    assert torch.equal(dlens.trace(model).capture("logits").forward(ids[0])["logits"], expected)


def test_trap_01_a_wrong_rotary_buffer_is_refused(tmp_path: Path) -> None:
    module = build_remote(save_dream(tmp_path))
    dlens.load(module)
    buffers = [part for part in module.modules() if "inv_freq" in part._buffers]
    for part in buffers:
        part.inv_freq.mul_(1.001)
    with pytest.raises(VerificationError, match=r"inv_freq .*; expected .*; the buffer was lost while loading"):
        dlens.load(module)


def test_trap_02_a_block_skipped_at_some_steps_of_cached_decoding(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).skip([4, 9], steps=[2, 3]).capture("logits")
    record = trace.generate(STORY, 6)
    ids = ids_of(ar, STORY)
    tokens, logits = decoded_by_hand(fresh(ar.module), ids, 6, skipping([4, 9], [2, 3]))
    assert torch.equal(record.tokens[0], tokens)
    torch.testing.assert_close(record["logits"][0, ids.shape[1] - 1 :], logits, atol=1e-4, rtol=0)
    assert "KV cache off because of 'skip layers 4, 9 at steps 2, 3'" in record.notes[0]
    with pytest.raises(ValueError, match="cache='require' with 'skip layers 4, 9"):
        trace.generate(STORY, 6, cache="require")


def test_trap_03_layer_0_skipped_with_padding_and_a_cache(ar: dlens.Model) -> None:
    record = dlens.trace(ar).skip([0]).capture("logits").generate(STORIES, 6, cache="require")
    pruned = rebuilt(ar.module, range(1, ar.n_layers))
    for row, text in enumerate(STORIES):
        tokens, logits = decoded_by_hand(pruned, ids_of(ar, text), 6)
        assert torch.equal(record.tokens[row][~record.is_pad[row]], tokens)
        torch.testing.assert_close(record["logits"][row, -6:], logits, atol=1e-4, rtol=0)


@dataclass(frozen=True)
class Careless(Denoiser):
    """A sampler that edits in place what it was given and what it handed over."""

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        return max_new_tokens

    def decode(self, forward: Any, canvas: Tensor, generated: Tensor, new_tokens: int, tokens: Any, draw: Any) -> Any:
        canvas = canvas.clone()
        for column in range(canvas.shape[1] - new_tokens, canvas.shape[1]):
            logits = forward(canvas)
            canvas[:, column] = logits[:, column].argmax(-1)
            logits.zero_()
        return canvas


def test_trap_04_what_was_kept_aliases_what_is_edited_later(diffusion: dlens.Model) -> None:
    kept: list[Tensor] = []
    trace = dlens.trace(diffusion).capture("logits").hook("logits", lambda value, hook: kept.append(value))
    record = trace.generate(STORY, 4, sampler=Careless())
    mask, start = diffusion.family.mask_token_id, record.tokens.shape[1] - 4
    assert record.canvas is not None
    assert [(canvas[0] == mask).sum().item() for canvas in record.canvas] == [4, 3, 2, 1]
    for step in range(4):
        expected = record.tokens[0, start + step]
        assert record["logits"][step, 0, start + step].argmax() == expected
        assert kept[step][0, start + step].argmax() == expected


def test_trap_05_a_run_that_ends_before_the_steps_that_were_asked_for(ar: dlens.Model) -> None:
    end = ar.eos_token_id
    assert end is not None

    def stop(value: Tensor, hook: Any) -> None:
        value[:, -1, end] = 1e4

    trace = (
        dlens.trace(ar)
        .hook("logits", stop, steps=[3])
        .capture("resid_post", layers=[2, 5], steps=range(12))
        .steer(torch.ones(ar.d_model), layers=1, steps=[9])
        .measure(dlens.Cosine())
    )
    with pytest.warns(dlens.UnfiredWarning, match="ended after 4 of 12 steps, before these acted: add 1 x"):
        record = trace.generate(STORY, 12)
    width = ids_of(ar, STORY).shape[1]
    assert (record.n_steps, record.planned_steps, record.tokens.shape[1]) == (4, 12, width + 4)
    assert record["resid_post"].shape == (2, 1, width + 3, ar.d_model)
    assert bool((record["resid_post"] != 0).any(-1).all())
    assert record.measures["cosine"].sizes["layer"] == ar.n_layers
    assert [words.split(" to ")[0] for words in record.unfired] == [f"add 1 x a vector [{ar.d_model}]"]


def test_trap_06_operations_named_out_of_order(diffusion: dlens.Model) -> None:
    one, two = torch.linspace(-3, 3, diffusion.d_model), torch.linspace(2, -1, diffusion.d_model)
    trace = dlens.trace(diffusion).capture("logits").hook("logits", lambda value, hook: None, steps=[2])
    trace = trace.steer(one, layers=9, steps=[1, 2]).capture("mlp_out", layers=[9, 4])
    record = trace.steer(two, layers=2, steps=[1]).capture("resid_pre", "embed").generate(STORY, 4)

    def by_hand(step: int, layer: int, hidden: Tensor, out: Tensor, ids: Tensor) -> Tensor | None:
        added = {(1, 9): one, (2, 9): one, (1, 2): two}.get((step, layer))
        return None if added is None else out + added

    assert record.canvas is not None
    assert torch.equal(record["logits"], denoised_by_hand(diffusion, record.canvas, by_hand))


def test_trap_07_parts_of_a_skipped_block_count_fewer_calls(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([5], steps=[0, 1]).capture("attn_out", layers=[5], steps=[2, 3])
    record = trace.capture("logits").generate(STORY, 5)
    assert record.canvas is not None
    module, seen = fresh(diffusion.module), []
    module.model.layers[5].self_attn.register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    with torch.no_grad():
        for ids in record.canvas[2:4]:
            module(input_ids=ids, use_cache=False)
    assert torch.equal(record["attn_out"][:, 0], torch.stack(seen))
    assert torch.equal(record["logits"], denoised_by_hand(diffusion, record.canvas, skipping([5], [0, 1])))


def test_trap_07_parts_of_a_skipped_half_count_fewer_calls_under_a_cache(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([5], part="mlp", steps=[0, 1]).capture("mlp_out", layers=[5], steps=[2, 3])
    sampler, cache = LLaDA(block_length=3), dlens.caches.Dual()
    record = trace.capture("logits").generate(STORY, 6, sampler=sampler, cache=cache)
    module, seen = fresh(diffusion.module), []

    def skipped(_module: Any, _args: Any, out: Tensor) -> Tensor:
        seen.append(out)
        return torch.zeros_like(out) if len(seen) <= 2 else out

    module.model.layers[5].mlp.register_forward_hook(skipped)
    same_as_by_hand(record, by_hand(diffusion, module, sampler, [STORY], 6))
    assert record.computed is not None
    for step, found in zip((2, 3), record["mlp_out"][:, 0], strict=True):
        computed = record.computed[step]
        torch.testing.assert_close(found[computed], seen[step][computed], atol=1e-4, rtol=0)


def by_hand(model: dlens.Model, module: Any, sampler: Denoiser, prompts: list[str], new_tokens: int) -> Run:
    """A run whose steps after the first of a block have old keys and values outside it, put there by hooks."""
    rows = [ids_of(model, text)[0].tolist() for text in prompts]
    mask, shift = model.family.mask_token_id, model.family.shift
    assert mask is not None
    return cached_run(module, sampler, dual, rows, new_tokens, mask, shift)


def same_as_by_hand(record: dlens.Record, run: Run) -> None:
    """The tokens, and the logits of what was computed."""
    real = ~record.is_pad
    assert record.computed is not None and torch.equal(record.tokens[real], run.tokens[real])
    computed = torch.stack(run.computed) & real
    assert torch.equal(record.computed, computed) and not computed.all()
    torch.testing.assert_close(record["logits"][computed], torch.stack(run.logits)[computed], atol=1e-4, rtol=0)


def test_trap_08_the_two_halves_of_guidance_are_one_step(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3], steps=[2]).capture("logits", "resid_post")
    record = trace.generate(STORY, 4, sampler=LLaDA(guidance=1.5))
    assert (record.n_steps, record.planned_steps) == (4, 4)
    assert record["resid_post"].shape[:3] == (4, diffusion.n_layers, 1)
    assert record.canvas is not None
    expected = denoised_by_hand(diffusion, record.canvas, skipping([3], [2]))
    torch.testing.assert_close(record["logits"], expected, atol=1e-4, rtol=0)
    assert torch.equal(record["resid_post"][2, 3], record["resid_post"][2, 2])
    assert not torch.equal(record["resid_post"][1, 3], record["resid_post"][1, 2])
    unguided = trace.generate(STORY, 4)
    assert (record.flops, record.saved_flops) == (2 * unguided.flops, 2 * unguided.saved_flops)


def test_trap_09_shifted_logits_are_read_one_position_before(ar_init: dlens.Model) -> None:
    record = dlens.trace(ar_init).capture("logits").generate(STORY, 4)
    start = record.tokens.shape[1] - 4
    record["logits"][..., ar_init.family.mask_token_id] = -torch.inf
    for position in range(start, start + 4):
        step = int(record.committed_at[0, position])
        assert record["logits"][step, 0, position - 1].argmax() == record.tokens[0, position]


@pytest.mark.parametrize(("name", "wrong"), [("ar_init", "masked"), ("diffusion", "masked-shifted")])
def test_trap_09_a_wrong_shift_is_refused(name: str, wrong: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    with pytest.raises(VerificationError, match=f"predicts masked words .*; expected shift .*{wrong!r}"):
        dlens.load(model.module, tokenizer=model.tokenizer, family=wrong)


@pytest.mark.parametrize("algorithm", ["maskgit_plus", "topk_margin", "entropy", "origin"])
def test_trap_10_rows_with_unequal_numbers_of_masks(ar_init: dlens.Model, algorithm: Any) -> None:
    mask = ar_init.family.mask_token_id
    ids = ids_of(ar_init, "Once upon a time there was a little girl named Lily who had a dog")[0].tolist()
    rows = [[mask if i in masked else token for i, token in enumerate(ids)] for masked in ({3}, set(range(2, 10)))]
    sampler = Dream(steps=3, algorithm=algorithm)
    trace = dlens.trace(ar_init)
    record = trace.generate(rows, 1, infill=True, sampler=sampler)
    fixed = torch.tensor(rows) != mask
    assert torch.equal(record.tokens[:, :-1][fixed], torch.tensor(rows)[fixed])
    assert not bool((record.tokens == mask).any())
    if algorithm != "origin":
        for row, tokens in zip(rows, record.tokens, strict=True):
            alone = trace.generate([row], 1, infill=True, sampler=sampler)
            assert torch.equal(alone.tokens[0], tokens)


@pytest.mark.parametrize(
    "sampler",
    [LLaDA(), Threshold(threshold=1.0), *(Dream(algorithm=a) for a in ("maskgit_plus", "topk_margin", "entropy"))],
)
def test_trap_11_confidences_that_bf16_would_tie(sampler: Denoiser) -> None:
    # In bf16 the two have equal probabilities, margins and entropies, and the left one would come first.
    scores = torch.tensor([[[3.0, 1, 0, 0], [1, 3.0, -(2**-7), 0]]], dtype=torch.bfloat16)
    shares = scores[0, :, :3].softmax(-1)
    first, second = shares.topk(2).values.unbind(-1)
    for confidence in (first, first - second, (shares * shares.log()).sum(-1)):
        assert confidence[0] == confidence[1]
    assert first_commit(sampler, scores) == [3, 1]
    tied = torch.tensor([[[0, 8.0, 0, 0]] * 40], dtype=torch.bfloat16)
    assert first_commit(sampler, tied) == [1] + [3] * 39


def first_commit(sampler: Denoiser, logits: Tensor) -> list[int]:
    """The canvas after one step of a run over masks alone, for a network that always gives these logits."""
    canvases: list[Tensor] = []

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Any = slice(None)) -> Tensor:
        canvases.append(canvas)
        return logits[:, columns]

    width = logits.shape[1]
    canvas = torch.full((1, width), 3)
    draw = torch.Generator().manual_seed(0)
    sampler.decode(
        forward, canvas, canvas == 3, width, Tokens(mask=3), lambda shape: torch.rand(tuple(shape), generator=draw)
    )
    return canvases[1][0].tolist()


def test_trap_12_bidirectional_models_attend_to_what_follows(diffusion: dlens.Model) -> None:
    attentions = [part for part in diffusion.module.modules() if "is_causal" in vars(part)]
    assert len(attentions) == diffusion.n_layers and not any(part.is_causal for part in attentions)
    ids = ids_of(diffusion, STORY)[0]
    changed = ids.clone()
    changed[-1] = ids[0]
    trace = dlens.trace(diffusion).capture("logits")
    assert not torch.equal(trace.forward(ids)["logits"][0, 0], trace.forward(changed)["logits"][0, 0])


def causal(model: dlens.Model) -> Any:
    """The model's weights in a module that nobody told to look ahead."""
    module = fresh(model.module)
    module.config.is_causal = True
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = True
    return module


def test_trap_12_a_checkpoint_that_does_not_say_so_is_made_bidirectional(
    diffusion: dlens.Model, tmp_path: Path
) -> None:
    module = causal(diffusion)
    del module.config.is_causal
    module.save_pretrained(tmp_path)
    loaded = dlens.load(tmp_path, tokenizer=diffusion.tokenizer, family="masked")
    logits = [dlens.trace(model).capture("logits").forward(STORY)["logits"] for model in (loaded, diffusion)]
    assert torch.equal(*logits)


def test_trap_12_attention_left_causal_is_refused(diffusion: dlens.Model) -> None:
    with pytest.raises(VerificationError, match="is causal: .*; expected bidirectional, .*; give the right family="):
        dlens.load(causal(diffusion), tokenizer=diffusion.tokenizer, family="masked")


def test_trap_13_the_last_residual_is_before_the_final_norm(diffusion: dlens.Model) -> None:
    ids = ids_of(diffusion, STORY)
    last = dlens.trace(diffusion).capture("resid_post").forward(STORY)["resid_post"][-1]
    module = fresh(diffusion.module)
    with torch.no_grad():
        hidden = module(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1]
        assert torch.equal(module.model.norm(last), hidden)
    assert not torch.allclose(last, hidden)


def test_trap_14_biased_cka_of_unrelated_data_looks_alike() -> None:
    config = transformers.Qwen2Config(
        vocab_size=64,
        hidden_size=512,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    generator = torch.Generator().manual_seed(0)
    trace = dlens.trace(transformers.Qwen2ForCausalLM(config).eval())
    trace = trace.hook("resid_post", lambda value, hook: torch.randn(value.shape, generator=generator))
    record = trace.measure(dlens.CKA(), dlens.CKA(debiased=False, name="biased")).forward(torch.arange(64)[None])
    default, biased = (record.measures[key] for key in ("cka", "biased"))
    # Of n unrelated rows in d dimensions the biased estimate is d / (n + d).
    assert float(biased["cka_all"][0, 1]) == pytest.approx(512 / (64 + 512), abs=0.01) == 0.89
    assert abs(float(default["cka_all"][0, 1])) < 0.05
    assert "HSIC1 (debiased)" in default.attrs["estimator"] and "HSIC0 (biased)" in biased.attrs["estimator"]


def test_trap_15_an_all_mask_canvas_makes_early_cosines_look_high(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).measure(dlens.Cosine(), dlens.Recency()).capture("resid_pre", "resid_post")
    record = trace.generate(STORY, 20)
    between = record.measures["recency"]["off_diagonal"]
    assert float(between.sel(noise=0.95, layer=0)) > float(between.sel(noise=0.05, layer=0)) + 0.2
    cosine = record.measures["cosine"]
    assert cosine["cosine"].dims == ("step", "noise", "state", "layer") and between.dims == ("noise", "layer")
    assert record.canvas is not None
    pre, post = (record[point].double() for point in ("resid_pre", "resid_post"))
    by_hand, masked = torch.cosine_similarity(pre, post, dim=-1), record.canvas[:, 0] == diffusion.family.mask_token_id
    for step, bin_ in ((0, 9), (7, 6), (19, 0)):
        noise = cosine.isel(step=step, noise=bin_)
        decoded = ~masked[step] & ~record.is_prompt[0]
        for state, where in (("prompt", record.is_prompt[0]), ("masked", masked[step]), ("decoded", decoded)):
            assert noise["n"].sel(state=state).values.tolist() == [int(where.sum())] * diffusion.n_layers
            found = torch.tensor(noise["cosine"].sel(state=state).values)
            expected = by_hand[step, :, 0, where].mean(-1)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, equal_nan=True)


def test_trap_16_padding_is_not_attended_to(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).capture("logits", "resid_post")
    batch = trace.forward(STORIES)
    decoded = dlens.trace(diffusion).generate(STORIES, 6)
    for row, text in enumerate(STORIES):
        real = ~batch.is_pad[row]
        alone = trace.forward(text)
        torch.testing.assert_close(batch["logits"][row][real], alone["logits"][0], atol=1e-4, rtol=0)
        assert not bool(batch["resid_post"][:, row, ~real].any())
        assert decoded.text[row] == dlens.trace(diffusion).generate(text, 6).text[0]


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_trap_16_padding_is_not_measured(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    trace = dlens.trace(model).measure(dlens.Cosine()).capture("resid_pre", "resid_post")
    record = trace.forward(STORIES)
    real = ~record.is_pad
    cosine = torch.cosine_similarity(record["resid_pre"].double(), record["resid_post"].double(), dim=-1)
    measured = torch.tensor(record.measures["cosine"]["cosine"].values).flatten()
    measured = measured[~measured.isnan()].reshape(-1)
    torch.testing.assert_close(measured, cosine[:, real].mean(-1).to(measured), atol=1e-5, rtol=0)


def test_trap_17_a_prompt_that_holds_the_mask_token(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    ids = ids_of(diffusion, "The cat sat on the mat.")[0].tolist()
    held = [mask if i in (2, 3) else token for i, token in enumerate(ids)]
    trace = dlens.trace(diffusion)
    for prompt in (held, diffusion.tokenizer.decode(held)):
        with pytest.raises(
            ValueError, match=rf"prompt 1 holds the mask token \({mask}\) 2 times; .*; pass infill=True"
        ):
            trace.generate([ids, prompt], 4)
    record = trace.capture("embed").generate([ids, held], 4, infill=True)
    assert not bool((record.tokens == mask).any())
    assert record.tokens[:, : len(ids)][:, [0, 1, *range(4, len(ids))]].tolist() == [ids[:2] + ids[4:]] * 2
    assert record.tokens[0, : len(ids)].tolist() == ids
    assert diffusion.pad_token_id != mask


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_trap_18_gradients_are_not_kept(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    seen: list[bool] = []
    handle = model.blocks[3].register_forward_hook(lambda _m, _a, out: seen.append(out.requires_grad))
    assert torch.is_grad_enabled() and all(p.requires_grad for p in model.module.parameters())
    kept: list[Tensor] = []
    trace = dlens.trace(model)
    busy = trace.steer(torch.ones(model.d_model, requires_grad=True), layers=1).capture("resid_post")
    busy = busy.hook("blocks.2.hook_resid_post", lambda value, hook: kept.append(value))
    for run in (trace, busy):
        run.forward(STORY)
        record = run.generate(STORY, 2)
    handle.remove()
    assert len(seen) == 6 and not any(seen)
    assert not any(value.requires_grad for value in (*kept, record["resid_post"]))
    assert torch.is_grad_enabled()


def test_trap_19_a_block_repeated_with_a_cache(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).repeat(5, times=2).capture("logits")
    record = trace.generate(STORY, 6)
    ids = ids_of(ar, STORY)
    doubled = rebuilt(ar.module, [*range(6), *range(5, ar.n_layers)])
    tokens, logits = decoded_by_hand(doubled, ids, 6)
    assert torch.equal(record.tokens[0], tokens)
    torch.testing.assert_close(record["logits"][0, ids.shape[1] - 1 :], logits, atol=1e-4, rtol=0)
    assert "KV cache off because of 'run layer 5 2 times'" in record.notes[0]
    with pytest.raises(ValueError, match="cache='require' with 'run layer 5 2 times'"):
        trace.generate(STORY, 6, cache="require")


def test_trap_20_two_threads_on_one_module(diffusion: dlens.Model) -> None:
    other = dlens.load(diffusion.module, tokenizer=diffusion.tokenizer)
    traces = [dlens.trace(diffusion).skip([3, 4]), dlens.trace(other).swap(2, 7)]
    traces = [trace.capture("logits", steps=[0, 7]) for trace in traces]
    expected = [trace.generate(STORY, 8)["logits"] for trace in traces]
    together = threading.Barrier(2)

    def run(trace: dlens.Trace) -> Tensor:
        together.wait(timeout=60)
        return trace.generate(STORY, 8)["logits"]

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(run, traces), expected, strict=True):
                assert torch.equal(found, wanted)


def test_trap_20_a_deep_copy_of_a_traced_model(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([2, 9]).capture("logits")
    expected = trace.forward(STORY)["logits"]
    copied = copy.deepcopy(diffusion)
    assert copied.module is not diffusion.module and copied.memo == {}
    loaded = dlens.load(copy.deepcopy(diffusion.module), tokenizer=diffusion.tokenizer)
    moved = dataclasses.replace(diffusion, module=copy.deepcopy(diffusion.module))
    for model in (copied, loaded, moved, diffusion):
        again = dlens.trace(model).skip([2, 9]).capture("logits").forward(STORY)["logits"]
        assert torch.equal(again, expected)


def test_trap_21_the_rotary_shim_stays_with_the_remote_code(tmp_path: Path) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.GPTNeoXConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )

    def frequencies() -> Tensor:
        return transformers.GPTNeoXForCausalLM(config).gpt_neox.rotary_emb.inv_freq

    table, before = dict(ROPE_INIT_FUNCTIONS), frequencies()
    dlens.load(save_dream(tmp_path), trust_remote_code=True)
    assert table == ROPE_INIT_FUNCTIONS and "default" not in ROPE_INIT_FUNCTIONS
    assert torch.equal(frequencies(), before)


@pytest.mark.parametrize("hides_padding", [True, False])
def test_trap_22_remote_code_that_ignores_the_attention_mask(tmp_path: Path, hides_padding: bool) -> None:
    model = dlens.load(save_llada(tmp_path, hides_padding=hides_padding), trust_remote_code=True)
    mask = model.family.mask_token_id
    assert model.honours_padding is hides_padding
    prompts = [[5, 9, 33, 12, 71], [8, 2], [44, 17, 3, 60, 21], [7]]
    trace = dlens.trace(model).steer(torch.ones(model.d_model), layers=1, tokens="decoded")
    trace = trace.capture("logits", "resid_post").measure(dlens.Cosine())
    batch = trace.generate(prompts, 4)
    for row, prompt in enumerate(prompts):
        alone = trace.generate([prompt], 4)
        real = ~batch.is_pad[row]
        assert torch.equal(batch.tokens[row][real], alone.tokens[0])
        for name in ("logits", "resid_post"):
            torch.testing.assert_close(batch[name][..., row, real, :], alone[name][..., 0, :, :], atol=1e-4, rtol=0)
    filled = dlens.trace(model).generate([[5, mask, 33], [8]], 0, infill=True)
    assert filled.tokens[0].tolist() == [5, filled.tokens[0, 1].item(), 33] and filled.tokens[0, 1] != mask
    assert (filled.n_steps, filled.tokens[1, -1].item()) == (1, 8)


def test_trap_23_experts_that_the_counter_has_no_formula_for() -> None:
    torch.manual_seed(0)
    module = MixtralForCausalLM(MixtralConfig(**SIZE, num_local_experts=4, num_experts_per_tok=2)).eval()
    ids = torch.arange(3, 19)[None]
    grouped = dlens.trace(module).skip([1]).forward(ids)
    experts, attention, router = 2 * 3 * 32 * 48, 2 * 32 * 32 + 2 * 32 * 16 + 2 * 16 * 32, 32 * 4
    assert grouped.saved_flops == 2 * 16 * (experts + attention + router)
    module.set_experts_implementation("eager")
    assert dlens.trace(module).skip([1]).forward(ids).flops == grouped.flops


def test_trap_24_what_is_remembered_of_a_model_that_changed() -> None:
    model = dlens.load("trio/ar", verify=False)
    trace = dlens.trace(model).ablate_outlier(value="mean").capture("logits")
    before = trace.forward(STORY)["logits"]
    weight = model.module.model.layers[3].mlp.down_proj.weight  # pyright: ignore
    for edit in (lambda w: w.flip(0), lambda w: w.bfloat16().float()):
        weight.data = edit(weight.data).contiguous()  # the sum of all numbers stays, or nearly
        changed = trace.forward(STORY)["logits"]
        anew = dlens.trace(dataclasses.replace(model, memo={})).ablate_outlier(value="mean").capture("logits")
        assert torch.equal(changed, anew.forward(STORY)["logits"])
        assert not torch.equal(changed, before)


def test_trap_25_a_proof_that_shares_code_with_what_it_proves(tmp_path: Path) -> None:
    module = build_remote(save_dream(tmp_path))
    for _, part in compat.rope_parts(module):
        part.rope_init_fn = lambda *_, **__: (torch.tensor([1.0, 0.5, 0.25, 0.125]), 1.0)  # pyright: ignore
    compat.repair(module)
    with pytest.raises(VerificationError, match="inv_freq"):
        dlens.load(module)


def test_trap_26_a_text_that_has_its_special_tokens(ar: dlens.Model) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = copy.deepcopy(ar.tokenizer.backend_tokenizer)
    start = backend.token_to_id("<|endoftext|>")
    backend.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", start)])
    tokenizer = type(ar.tokenizer)(tokenizer_object=backend)
    tokenizer.chat_template = "<|endoftext|>{% for m in messages %}{{ m.content }}{% endfor %}"
    trace = dlens.trace(dataclasses.replace(ar, tokenizer=tokenizer))
    messages = [{"role": "user", "content": STORY}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = [start, *ar.tokenizer(STORY)["input_ids"]]
    assert tokenizer(text)["input_ids"] == [start, *ids]
    for prompt in (STORY, text, messages, [text, messages]):
        for row in trace.generate(prompt, 1).tokens[:, :-1].tolist():
            assert row == ids


def test_trap_27_a_claim_is_decided_by_what_its_sentence_says() -> None:
    answers = dict.fromkeys(ANSWERED, "1" * 36)
    dllm = made_model("diffusion", EVEN, solved=answers | {"apart": "1" * 9 + "0" * 27})
    init = made_model("ar-init", EVEN, solved=answers | {"apart": "1" * 21 + "0" * 15})
    study = made_study({"dllm": dllm, "init": init})
    rows = claims(study)
    less = rows[3].cells[1]
    # 0.58 of the accuracy is less than 0.9, and more than the 0.25 of native diffusion.
    assert less.says == "less is kept than in native diffusion" and less.verdict == "does not hold"
    claimed = [cell.verdict for row in rows for cell in row.cells if cell.claimed]
    assert len(claimed) == 2 * 8 - 2
    assert f"Of 14 verdicts on what they claim of each kind of model, {claimed.count('holds')} hold" in lead(
        study, rows
    )
    few = made_study({"dllm": made_model("diffusion", EVEN, solved=dict.fromkeys(ANSWERED, "1" * 12))})
    assert claims(few)[3].cells[0].limit.startswith("cannot be confirmed with 12 problems of which 12 are")


def test_trap_28_a_picture_labelled_with_what_was_chosen_since() -> None:
    from dlens.widgets import LayerCollapse
    from tests.widgets.records import layered

    widget = LayerCollapse(layered())
    seen = []
    widget.observe(lambda change: seen.append((change.name, change.new)), ["token_shares", "detail", "similarity"])
    widget.channel, widget.without = 4, True
    shown = dict(seen)
    assert (
        shown["token_shares"]["channel"]
        == shown["detail"]["channel"]
        == shown["similarity"]["without"]
        == widget.channel
    )
    # What the kernel has not computed yet keeps the label of what it is of.
    widget.unobserve_all()
    widget.channel = widget.channels[0]
    assert widget.token_shares["channel"] == 4 != widget.channel


@pytest.mark.parametrize(("n", "baseline", "retained"), [(64, 0.95, 0.95), (64, 0.9, 0.95), (16, 0.6, 0.95)])
def test_trap_29_an_interval_covers_where_few_answers_differ(n: int, baseline: float, retained: float) -> None:
    """Simulations of every interval are in tests/findings/scores/test_intervals.py and test_estimate.py."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        before = rng.random(n) < baseline
        after = before & (rng.random(n) < retained)
        low, high = ratio_interval(before.tolist(), after.tolist())
        hits += low <= retained <= high
    assert hits >= 930


def test_trap_30_a_module_called_from_another_thread_while_a_trace_runs(diffusion: dlens.Model) -> None:
    trace, ids = dlens.trace(diffusion).skip([3]).capture("logits"), ids_of(diffusion, STORY)
    expected = trace.generate(STORY, 4)
    with ThreadPoolExecutor(1) as pool:

        def call(view: Any) -> None:
            assert isinstance(pool.submit(diffusion.module, ids).exception(), RuntimeError)

        record = trace.generate(STORY, 4, on_step=call)
    assert torch.equal(record["logits"], expected["logits"])


def test_trap_31_a_save_that_is_seen_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_record(1).save(tmp_path)
    replace, seen = Path.replace, []

    def read_first(path: Path, target: Path) -> Path:
        seen.append(number_of(dlens.load_record(tmp_path)))
        return replace(path, target)

    # Without the lock, which a reader waits for, each moment of the save is seen.
    with monkeypatch.context() as patched:
        patched.setattr("dlens.tracing.records.store.read_alone", lambda _: nullcontext())
        patched.setattr(Path, "replace", read_first)
        made_record(2).save(tmp_path)
    assert seen == [1, 2, 2] and number_of(dlens.load_record(tmp_path)) == 2


def shifting(logits: Tensor, step: Any) -> Tensor:
    return logits[:, -1, 301] - logits[:, -1, 302]


def test_trap_32_a_gradient_flows_where_a_value_did_and_nowhere_else(diffusion: dlens.Model) -> None:
    """Every point and operation against finite differences is in tests/whole/test_gradients.py."""
    trace, ids = dlens.trace(shallow(diffusion, 4)), ids_of(diffusion, STORY)

    def gradients(trace: dlens.Trace, *points: str, **more: Any) -> Any:
        return trace.gradient(*points, of=shifting, **more).forward(ids).gradients

    # What a later operation replaced decides nothing; what it left alone does.
    replaced = gradients(trace.ablate(2), "resid_post", layers=[1, 2])["resid_post"]
    assert replaced[0].abs().max() == 0 and replaced[1].abs().max() > 0
    patched = trace.gradient("z", of=shifting, layers=1).ablate(1, at="z", heads=[0]).forward(ids).gradients["z"][0]
    assert patched[:, :, 0].abs().max() == 0 and patched[:, :, 1].abs().max() > 0
    # A skipped block passes all of it on, and nothing through itself.
    around = gradients(trace.skip([2]), "resid_pre", "resid_post", layers=2)
    assert torch.equal(around["resid_pre"], around["resid_post"]) and around["resid_pre"].abs().max() > 0
    with pytest.raises(ValueError, match="z of layer 2 does not exist where its block is skipped"):
        trace.skip([2]).gradient("z", of=shifting, layers=2)
    # The sampler's choice is a new beginning: each step's gradient is that of its canvas alone.
    run = trace.gradient("resid_pre", of=shifting, layers=0).generate(STORY, 3)
    assert run.canvas is not None and run.metric is not None
    for step, canvas in enumerate(run.canvas):
        alone = trace.gradient("resid_pre", of=shifting, layers=0).forward(canvas)
        assert torch.equal(run.gradients["resid_pre"][step], alone.gradients["resid_pre"])
        assert torch.equal(run.metric[step], alone.metric)


@pytest.mark.parametrize("name", ["gemma2", "mistral", "gpt2"])
def test_trap_33_a_pattern_is_the_one_that_was_used(name: str) -> None:
    """With soft caps and unlike scales, sliding masks, left padding, a cache, and a hand that writes; sinks are in
    tests/models/test_attention.py."""
    module = build(CONFIGS[name][0])
    trace = dlens.trace(module).knockout(1, source=[1], target=[3]).capture("pattern", "v", "z", layers=[0, 1])
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist()]
    for record in (trace.forward(prompts), trace.generate(prompts, 3), trace.generate(prompts, 3, cache="off")):
        pattern, v, z = record["pattern"], record["v"], record["z"]
        v = v.repeat_interleave(z.shape[3] // v.shape[3], dim=3)
        mixed = torch.einsum("lbhqk,lbkhd->lbqhd", pattern, v)
        real = ~record.is_pad[:, : z.shape[2]]
        assert torch.allclose(mixed[:, real], z[:, real], atol=1e-5)
        assert pattern[:, 1, :, 3:, :3].abs().max() == 0  # the padding of the second row
        assert pattern[1, 0, :, 3, 1].abs().max() == 0 and pattern[0, 0, :, 3, 1].abs().min() > 0


def test_trap_34_blocks_counted_from_the_end_of_the_prompt() -> None:
    """Blocks lie at multiples of their length from a row's first token, so that a prompt shares one with the answer."""
    canvases: list[Tensor] = []

    def forward(canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        canvases.append(canvas)
        assert columns is not None
        return torch.zeros(2, columns.shape[-1], 9)

    # Prompts of 6 and 5 tokens, the second one padded.
    canvas = torch.tensor([[1] * 6 + [8] * 6, [7] + [1] * 5 + [8] * 6])
    sampler = dlens.samplers.BlockDiffusion(4, steps=None, threshold=None, stop="never")
    generated = canvas == 8
    sampler.decode(forward, canvas, generated, 4, dlens.samplers.Tokens(8, starts=(0, 1)), lambda shape: torch.rand(0))
    seconds = [next(i for i, ids in enumerate(canvases) if ids[row, 8 + row] != 8) for row in (0, 1)]
    # Two and three tokens belong to the prompts' last blocks; the next block begins after them.
    assert seconds == [3, 4]


def test_trap_35_a_cached_step_whose_skipped_block_left_nothing_in_the_cache(diffusion: dlens.Model) -> None:
    """Skipped at some steps it is refused before compute; at every step there is nothing to read, and nobody reads."""
    sampler, cache, trace = LLaDA(block_length=3), dlens.caches.Dual(), dlens.trace(diffusion)
    passing = (
        trace.skip([5], steps=[0]),
        trace.skip([5], noise=(0.5, 1.0)),
        trace.skip([5], part="attn", steps="late"),
    )
    for chain in passing:
        with pytest.raises(ValueError, match="cache=Dual with 'skip .*: what is skipped at some steps leaves no keys"):
            chain.generate(STORIES, 6, sampler=sampler, cache=cache)
    record = trace.skip([0, 5]).capture("logits").generate(STORIES, 6, sampler=sampler, cache=cache)
    pruned = rebuilt(diffusion.module, [i for i in range(diffusion.n_layers) if i not in (0, 5)])
    same_as_by_hand(record, by_hand(diffusion, pruned, sampler, STORIES, 6))


def test_trap_36_a_recorded_step_that_plays_what_was(diffusion: dlens.Model) -> None:
    """Other prompts, operations and random numbers, one run after the other, each as without recordings."""
    sampler = dlens.samplers.LLaDA(steps=6, block_length=6, temperature=0.8)
    trace = dlens.trace(diffusion)
    with mock.patch("dlens.tracing.denoising.recorder_for", lambda device, packed, kept: TapeRecorder(packed)):
        for chain, prompt, seed in ((trace, "Once", 0), (trace.skip([2]), "Once", 0), (trace.skip([2]), "Two", 1)):
            off, played = (
                chain.generate(prompt, 6, sampler=sampler, seed=seed, progress=False, replay=replay)
                for replay in ("off", "auto")
            )
            assert torch.equal(off.canvas, played.canvas) and torch.equal(off.tokens, played.tokens)
            assert "5 of 6 steps were played" in played.notes[-1]


@pytest.mark.parametrize("settings", [{"method": "gptq", "bits": 3}, {"method": "wanda", "sparsity": 0.5}])
def test_trap_37_a_compressed_model_names_what_was_left_out(settings: dict[str, Any]) -> None:
    """Every linear matrix of every architecture is counted in tests/compression/test_compress.py."""
    config = MixtralConfig(**SIZE, num_local_experts=3, num_experts_per_tok=2)
    model = dlens.load(MixtralForCausalLM(config).eval(), verify=False)
    small = dlens.compress(model, **settings, texts=IDS.tolist())
    done = small.compression
    assert done is not None
    left = [name for name in done.left_out if "experts" in name]
    assert len(left) == 2 * model.n_layers and f"{len(done.left_out)} left out (layer 0 " in repr(done)
    # Each weight is as it was, or in a row that says what it became.
    changed = {(row.layer, row.matrix) for row in done.treated}
    for layer, (old, new) in enumerate(zip(model.blocks, small.blocks, strict=True)):
        for name, value in new.named_parameters():
            same = torch.equal(value, old.get_parameter(name))
            assert same != ((layer, name.removesuffix(".weight")) in changed), name
    assert done.share == pytest.approx(
        sum(row.weights for row in done.treated) / sum(value.numel() for value in model.module.parameters())
    )

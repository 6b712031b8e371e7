"""Every mistake raises before anything is computed, and says what came; what was expected; and the fix."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import dlens
from dlens.samplers import Autoregressive, Dream, LLaDA
from tests.reference import fresh
from tests.refusing import assert_three_parts, refused
from tests.unchecked import unchecked
from tests.untouched import untouched

STORY = "Once upon a time"
WIDTH = 4
NAME = "blocks.5.hook_resid_post"
Action = Callable[[dlens.Model], Any]


def trace(model: dlens.Model) -> dlens.Trace:
    return dlens.trace(model)


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape)


VERBS: dict[str, tuple[type[Exception], str, Action]] = {
    "skip beyond the last layer": (IndexError, "layer 16", lambda m: trace(m).skip([3, 16])),
    "skip before the first layer": (IndexError, "layer -17", lambda m: trace(m).skip(-17)),
    "swap beyond": (IndexError, "layer 99", lambda m: trace(m).swap(0, 99)),
    "repeat beyond": (IndexError, "layer 16", lambda m: trace(m).repeat(16)),
    "ablate beyond": (IndexError, "layer 99", lambda m: trace(m).ablate([0, 99])),
    "outlier beyond": (IndexError, "layer 20", lambda m: trace(m).ablate_outlier(layers=20)),
    "steer beyond": (IndexError, "layer 77", lambda m: trace(m).steer(ones(192), layers=[3, 77])),
    "hook beyond": (IndexError, "layer 16", lambda m: trace(m).hook("blocks.16.hook_resid_post", print)),
    "capture beyond": (IndexError, "layer -18", lambda m: trace(m).capture("blocks.-18.hook_resid_pre")),
    "capture layers beyond": (IndexError, "layer 40", lambda m: trace(m).capture("resid_post", layers=[1, 40])),
    "unknown point": (ValueError, "'resid_final'", lambda m: trace(m).capture("resid_final")),
    "unknown full name": (ValueError, "'blocks.1.hook_q'", lambda m: trace(m).hook("blocks.1.hook_q", print)),
    "pattern without attn": (ValueError, "hook_pattern'", lambda m: trace(m).capture("blocks.1.hook_pattern")),
    "name of no layer": (ValueError, "blocks.x.", lambda m: trace(m).capture("blocks.x.hook_resid_post")),
    "pattern of a fused kernel": (ValueError, "has no pattern", lambda m: trace(m).capture("pattern")),
    "at a word": (ValueError, "at='residual'", lambda m: trace(m).steer(ones(192), at="residual")),
    "at the embedding": (ValueError, "at='embed'", lambda m: trace(m).ablate(None, at="embed")),
    "at the pattern": (ValueError, "at='pattern'", lambda m: trace(m).ablate(None, at="pattern")),
    "unknown part": (ValueError, "part='head'", lambda m: trace(m).skip(3, part="head")),  # pyright: ignore
    "unknown third": (ValueError, "steps='end'", lambda m: trace(m).skip(3, steps="end")),  # pyright: ignore
    "unknown tokens": (ValueError, "tokens='first'", lambda m: trace(m).ablate(3, tokens="first")),
    "a text of layers": (ValueError, "layer '12'", lambda m: trace(m).skip("12")),  # pyright: ignore
    "a float layer": (ValueError, "layer 1.7", lambda m: trace(m).skip([1.7])),  # pyright: ignore
    "a bool layer": (ValueError, "layer True", lambda m: trace(m).skip(True)),
    "a mask of layers": (ValueError, "layer tensor(False)", lambda m: trace(m).skip(torch.arange(16) == 5)),
    "a float swapped": (ValueError, "layer 2.0", lambda m: trace(m).swap(2.0, 7)),  # pyright: ignore
    "a bool channel": (ValueError, "channel True", lambda m: trace(m).ablate_outlier(channel=True)),
    "half a run more": (ValueError, "times 2.5", lambda m: trace(m).repeat(3, 2.5)),  # pyright: ignore
    "no layers": (ValueError, "no layers", lambda m: trace(m).ablate([])),
    "no layers to capture": (ValueError, "no layers", lambda m: trace(m).capture("resid_post", layers=[])),
    "no channels": (ValueError, "no channels", lambda m: trace(m).ablate(3, [])),
    "no measures": (ValueError, "no measures", lambda m: trace(m).measure()),
    "no tokens": (ValueError, "no position", lambda m: trace(m).ablate(3, tokens=[])),
    "bools for tokens": (ValueError, "position True", lambda m: trace(m).ablate(3, tokens=[True])),
    "bool steps": (ValueError, "step True", lambda m: trace(m).skip(3, steps=True)),
    "half a step": (ValueError, "step 1.5", lambda m: trace(m).skip(3, steps=1.5)),  # pyright: ignore
    "no steps": (ValueError, "steps=[] is empty", lambda m: trace(m).skip(3, steps=[])),
    "a range that falls": (
        ValueError,
        "steps=range(4, 0) is empty",
        lambda m: trace(m).capture("logits", steps=range(4, 0)),
    ),
    "one noise": (ValueError, "noise=0.5", lambda m: trace(m).skip(3, noise=0.5)),  # pyright: ignore
    "layers of the logits": (ValueError, "layers=[3] with 'logits'", lambda m: trace(m).capture("logits", layers=[3])),
    "layers of a name": (ValueError, "layers=2 with 'blocks.5", lambda m: trace(m).capture(NAME, layers=2)),
    "layers of a hooked name": (ValueError, "layers=2 with 'blocks.5", lambda m: trace(m).hook(NAME, print, layers=2)),
    "no function": (ValueError, "is None", lambda m: trace(m).hook("resid_post", None)),  # pyright: ignore
    "a class of measures": (ValueError, "Cosine", lambda m: trace(m).measure(dlens.Cosine)),  # pyright: ignore
    "no record": (ValueError, "patch got dict", lambda m: trace(m).patch({})),  # pyright: ignore
    "a function of one": (
        ValueError,
        "takes (value)",
        lambda m: trace(m).hook(NAME, lambda value: value),  # pyright: ignore
    ),
    "a layer to steer by": (ValueError, "steer got 5", lambda m: trace(m).steer(5, ones(192))),
    "layers to steer by": (ValueError, "steer got [5, 9]", lambda m: trace(m).steer([5, 9], ones(192))),
    "no vector": (ValueError, "vector is a str", lambda m: trace(m).steer("up")),
    "a scale in words": (ValueError, "scale='2'", lambda m: trace(m).steer(ones(192), scale="2")),  # pyright: ignore
    "a vector for each mention": (
        ValueError,
        "shape (2, 192)",
        lambda m: trace(m).steer(ones(2, 192), layers=[3, 3]),
    ),
    "a single token": (ValueError, "tokens=3", lambda m: trace(m).ablate(3, tokens=3)),  # pyright: ignore
    "unknown value": (ValueError, "value='max'", lambda m: trace(m).ablate(3, value="max")),  # pyright: ignore
    "unknown outlier value": (ValueError, "value='max'", lambda m: trace(m).ablate_outlier(5, value="max")),  # pyright: ignore
    "unknown outlier value, no channel": (ValueError, "value='max'", lambda m: trace(m).ablate_outlier(value="max")),  # pyright: ignore
    "float tokens": (ValueError, "torch.float32 tensor", lambda m: trace(m).ablate(3, tokens=ones(1, 4))),
    "nothing skipped": (ValueError, "no layers", lambda m: trace(m).skip([])),
    "nothing captured": (ValueError, "no hook points", lambda m: trace(m).capture()),
    "capture by noise": (ValueError, "noise=(0, 0.5)", lambda m: trace(m).capture("resid_post", noise=(0, 0.5))),
    "swap of one layer": (ValueError, "swap(15, 15)", lambda m: trace(m).swap(15, -1)),
    "one run in all": (ValueError, "times=1", lambda m: trace(m).repeat(3, times=1)),
    "channel beyond": (IndexError, "channel 192", lambda m: trace(m).ablate(3, channels=[0, 192])),
    "outlier channel beyond": (IndexError, "channel -1", lambda m: trace(m).ablate_outlier(-1)),
    "wide vector": (ValueError, "shape (193,)", lambda m: trace(m).steer(ones(193))),
    "too many vectors": (ValueError, "shape (3, 192)", lambda m: trace(m).steer(ones(3, 192), layers=[1, 2])),
    "wide value": (ValueError, "shape (3,)", lambda m: trace(m).ablate(3, channels=[1, 2], value=ones(3))),
    "noise backwards": (ValueError, "noise=(0.7, 0.2)", lambda m: trace(m).skip(3, noise=(0.7, 0.2))),
    "two of one measure": (ValueError, "'cosine'", lambda m: trace(m).measure(dlens.Cosine(), dlens.Cosine())),
    "captured twice": (ValueError, "record['logits']", lambda m: trace(m).capture("logits", "logits")),
}


@pytest.mark.parametrize("case", VERBS)
def test_a_verb_refuses_what_it_can_check(diffusion: dlens.Model, case: str) -> None:
    kind, came, action = VERBS[case]
    with unchecked(), refused(diffusion, kind, came):
        action(diffusion)


FIXES: dict[str, tuple[str, Action]] = {
    "layers as text": ("pass ints, such as 5 or [5, 9]", lambda m: trace(m).capture("resid_post", layers="5")),  # pyright: ignore
    "two layers as text": ("pass ints, such as 5 or [5, 9]", lambda m: trace(m).skip("5,9")),
    "float layers": ("pass ints, such as 5 or [5, 9]", lambda m: trace(m).skip([5.0])),
    "a mask of layers": ("[5, 9], not booleans", lambda m: trace(m).skip(torch.arange(16) == 5)),
    "float tokens": ("token ids are whole numbers: pass ints, or text", lambda m: trace(m).forward([0.5])),
    "steer by a layer": ("the order is steer(vector, layers)", lambda m: trace(m).steer(5, ones(192))),
    "steer by layers": ("the order is steer(vector, layers)", lambda m: trace(m).steer([5, 9], ones(192))),
    "ablate channels": ("the order is ablate(layers, channels)", lambda m: trace(m).ablate(29, range(2, 11))),
    "a step of a forward": ("a forward has one step", lambda m: trace(m).skip(3, steps=1).forward(STORY)),
    "misspelt point": ("did you mean 'resid_post'?", lambda m: trace(m).capture("resid_pots")),
    "misspelt place": ("did you mean 'resid_post'?", lambda m: trace(m).ablate(3, at="resid_pots")),
    "misspelt third": ("did you mean 'early'?", lambda m: trace(m).skip(3, steps="erly")),  # pyright: ignore
    "misspelt value": ("did you mean 'zero'?", lambda m: trace(m).ablate(3, value="zeros")),
    "misspelt tokens": ("did you mean 'masked'?", lambda m: trace(m).ablate(3, tokens="maskd")),
    "misspelt part": ("did you mean 'block'?", lambda m: trace(m).skip(3, part="blocks")),  # pyright: ignore
    "misspelt model": ("did you mean 'trio/diffusion'?", lambda m: dlens.load("trio/difusion")),
    "misspelt family": ("did you mean 'masked'?", lambda m: dlens.load("trio/ar", family="maskd")),
    "misspelt task": ("did you mean 'trio-code'?", lambda m: dlens.tasks.get("trio-cod")),
    "unlike any": ("check the spelling", lambda m: trace(m).capture("stream")),
}


@pytest.mark.parametrize("case", FIXES)
def test_the_fix_is_the_usual_one(diffusion: dlens.Model, case: str) -> None:
    fix, action = FIXES[case]
    with unchecked(), pytest.raises((ValueError, IndexError)) as caught:
        action(diffusion)
    assert fix in str(caught.value)


def test_an_error_inside_a_hook_names_it(ar: dlens.Model, diffusion: dlens.Model) -> None:
    def broken(value: torch.Tensor, hook: Any) -> None:
        raise KeyError(hook.layer)

    for model in (ar, diffusion):
        for run in (
            trace(model).hook(NAME, broken).forward,
            partial(trace(model).hook(NAME, broken).generate, max_new_tokens=2),
        ):
            with untouched(model), pytest.raises(KeyError) as caught:
                run(STORY)
            assert [note for note in caught.value.__notes__ if "broken" in note] == [
                f"in the hook {broken.__qualname__} at {NAME}, step 0, called as fn(value, hook)"
            ]


NOISE: dict[str, Action] = {
    "skip": lambda m: trace(m).skip(3, noise=(0.2, 0.5)),
    "swap": lambda m: trace(m).swap(3, 4, noise=(0.2, 0.5)),
    "repeat": lambda m: trace(m).repeat(3, noise=(0.2, 0.5)),
    "ablate": lambda m: trace(m).ablate(3, noise=(0.2, 0.5)),
    "ablate_outlier": lambda m: trace(m).ablate_outlier(noise=(0.2, 0.5)),
    "steer": lambda m: trace(m).steer(ones(192), noise=(0.2, 0.5)),
    "hook": lambda m: trace(m).hook("logits", print, noise=(0.2, 0.5)),
}


@pytest.mark.parametrize("verb", NOISE)
def test_noise_of_an_autoregressive_model(ar: dlens.Model, verb: str) -> None:
    with refused(ar, ValueError, "noise=(0.2, 0.5) on trio/ar"):
        NOISE[verb](ar)
    with refused(ar, ValueError, "tokens='masked' on trio/ar"):
        trace(ar).ablate(3, tokens="masked")


def test_noise_of_an_autoregressive_model_in_a_patch(ar: dlens.Model) -> None:
    record = trace(ar).capture("resid_post").forward(STORY)
    with refused(ar, ValueError, "noise=(0.2, 0.5) on trio/ar"):
        trace(ar).patch(record, noise=(0.2, 0.5))


LOW, HIGH = {"noise": (0.0, 0.5)}, {"noise": (0.4, 1.0)}
CONTRADICTIONS: dict[str, tuple[str, Action]] = {
    "skipped and captured": ("attn_out of layer 3", lambda m: trace(m).skip([2, 3]).capture("attn_out", layers=[3])),
    "captured and skipped": ("resid_mid of layer 0", lambda m: trace(m).capture("resid_mid").skip([0])),
    "skipped and hooked": ("mlp_out of layer 5", lambda m: trace(m).skip(5).hook("blocks.5.hook_mlp_out", print)),
    "attention skipped": ("attn_out of layer 1", lambda m: trace(m).skip(1, part="attn").capture("attn_out")),
    "MLP skipped": ("mlp_out of layer 1", lambda m: trace(m).skip(1, part="mlp").ablate(1, at="mlp_out")),
    "skipped and repeated": ("layer 4 is skipped and", lambda m: trace(m).skip(4).repeat(4)),
    "repeated twice": ("layer 4 is repeated twice", lambda m: trace(m).repeat(4).repeat(-12, times=3)),
    "repeated and captured": ("layer runs 2 times", lambda m: trace(m).repeat(4).capture("mlp_out", layers=4)),
    "repeated and swapped by row": ("swapped row by row", lambda m: trace(m).swap(4, 6, **LOW).repeat(6)),
    "swapped by row and captured": ("belong to two blocks", lambda m: trace(m).swap(4, 6, **LOW).capture("mlp_out")),
    "swapped by row, half skipped": ("half of a block", lambda m: trace(m).swap(4, 6, **LOW).skip(6, part="attn")),
    "where noise meets": ("mlp_out of layer 3", lambda m: trace(m).skip(3, **LOW).ablate(3, at="mlp_out", **HIGH)),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_operations_that_contradict_each_other(diffusion: dlens.Model, case: str) -> None:
    reason, action = CONTRADICTIONS[case]
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        action(diffusion)
    assert_three_parts(str(caught.value), "cannot both hold")


def test_operations_that_contradict_each_other_at_a_step(diffusion: dlens.Model) -> None:
    skipped = trace(diffusion).skip([3], steps=[0, 1])
    meeting = skipped.capture("attn_out", layers=[3], steps=[1, 2])
    came = "'skip layers 3 at steps 0, 1' and 'capture attn_out of layers 3 at steps 1, 2' cannot both hold"
    with refused(diffusion, ValueError, came):
        meeting.generate(STORY, 4)
    assert skipped.capture("attn_out", layers=[3], steps=[2, 3]).generate(STORY, 4).n_steps == 4
    apart = trace(diffusion).skip(3, noise=(0, 0.5)).ablate(3, at="mlp_out", noise=(0.5, 1))
    assert apart.generate(STORY, 4).n_steps == 4


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
    with refused(diffusion, ValueError, "names no step of 1"):
        trace(diffusion).skip(3, steps="early").forward(STORY)


def test_tokens_that_do_not_fit_the_run(diffusion: dlens.Model) -> None:
    wrong = torch.zeros(1, WIDTH, dtype=torch.bool)
    with refused(diffusion, ValueError, "shape (1, 4)"):
        trace(diffusion).ablate(3, tokens=wrong).generate(STORY, 8)
    with refused(diffusion, IndexError, "position 12"):
        trace(diffusion).ablate(3, tokens=[0, WIDTH + 8]).generate(STORY, 8)
    with refused(diffusion, IndexError, "position -5"):
        trace(diffusion).ablate(3, tokens=[-5]).forward(STORY)


SAMPLERS: dict[str, tuple[str, Action]] = {
    "block": ("block_length=3", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(block_length=3))),
    "more steps than tokens": ("steps=9", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(steps=9))),
    "steps": ("steps=3 in 2", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA(steps=3, block_length=4))),
    "AR sampler": ("Autoregressive for trio/d", lambda m: trace(m).generate(STORY, 8, sampler=Autoregressive())),
    "no tokens": ("max_new_tokens=0", lambda m: trace(m).generate(STORY, 0)),
    "fewer than none": ("max_new_tokens=-1", lambda m: trace(m).generate(STORY, -1, infill=True)),
    "nothing to fill": ("no mask", lambda m: trace(m).generate(STORY, 0, infill=True)),
    "too long": ("509 are to come", lambda m: trace(m).generate(STORY, 509)),
    "too long for a forward": ("has 513 tokens", lambda m: trace(m).forward([7] * 513)),
    "no prompts": ("no prompts", lambda m: trace(m).generate([], 8)),
    "an empty prompt": ("prompt 1 holds no tokens", lambda m: trace(m).generate([[7], []], 8)),
    "an empty string": ("prompt 0 holds no tokens", lambda m: trace(m).forward("")),
    "an id beyond": ("token id 4096", lambda m: trace(m).forward([1, 4096])),
    "a negative id": ("token id -1", lambda m: trace(m).forward([1, -1])),
    "half a token": ("max_new_tokens 4.0", lambda m: trace(m).generate(STORY, 4.0)),
    "no seed": ("seed None", lambda m: trace(m).generate(STORY, 4, seed=None)),
    "no limit": ("capture_limit None", lambda m: trace(m).generate(STORY, 4, capture_limit=None)),
    "no limit of a forward": ("capture_limit None", lambda m: trace(m).forward(STORY, capture_limit=None)),
    "a cache": ("cache='off' on trio/diffusion", lambda m: trace(m).generate(STORY, 4, cache="off")),
    "a required cache": ("cache='require' on", lambda m: trace(m).generate(STORY, 4, cache="require")),
    "a slice beyond": ("selects no token", lambda m: trace(m).ablate(3, tokens=slice(99, None)).generate(STORY, 4)),
    "an empty mask": ("selects no token", lambda m: trace(m).ablate(3, tokens=ones(1, 4) > 1).forward(STORY)),
    "a number": ("got int", lambda m: trace(m).forward(7)),
    "a list of floats": ("token id 0.5", lambda m: trace(m).forward([0.5])),
    "messages": ("no chat template", lambda m: trace(m).forward([{"role": "user", "content": "hi"}])),
    "forward memory": ("captures need", lambda m: trace(m).capture("logits").forward(STORY, capture_limit=65535)),
    "memory": ("captures need", lambda m: trace(m).capture("resid_post").generate(STORY, 8, capture_limit=10**6)),
}


@pytest.mark.parametrize("case", SAMPLERS)
def test_a_run_that_cannot_be(diffusion: dlens.Model, case: str) -> None:
    came, action = SAMPLERS[case]
    with unchecked(), refused(diffusion, MemoryError if "memory" in case else ValueError, came):
        action(diffusion)


def test_the_limit_of_captures_is_exact(diffusion: dlens.Model) -> None:
    needed = 8 * 16 * 1 * (WIDTH + 8) * 192 * 4
    chain = trace(diffusion).capture("resid_post")
    with pytest.raises(MemoryError, match=f"pass capture_limit={needed}$"):
        chain.generate(STORY, 8, capture_limit=needed - 1)
    assert chain.generate(STORY, 8, capture_limit=needed)["resid_post"].nbytes == needed


AR_RUNS: dict[str, tuple[str, Action]] = {
    "denoiser": ("LLaDA for trio/ar", lambda m: trace(m).generate(STORY, 8, sampler=LLaDA())),
    "other denoiser": ("Dream for trio/ar", lambda m: trace(m).generate(STORY, 8, sampler=Dream())),
    "too long": ("509 are to come", lambda m: trace(m).generate(STORY, 509)),
    "no tokens": ("max_new_tokens=0", lambda m: trace(m).generate(STORY, 0)),
    "infill": ("infill=True", lambda m: trace(m).generate(STORY, 8, infill=True)),
    "nothing to infill": ("infill=True", lambda m: trace(m).generate(STORY, 0, infill=True)),
    "unknown cache": ("cache='on'", lambda m: trace(m).generate(STORY, 8, cache="on")),  # pyright: ignore
    "the last token": ("names the last token", lambda m: trace(m).ablate(3, tokens=[0, -1]).generate(STORY, 4)),
    "only the last token": ("the last token", lambda m: trace(m).ablate(3, tokens=slice(-1, None)).generate(STORY, 4)),
    "a cache that repeats break": (
        "cache='require'",
        lambda m: trace(m).ablate_outlier().repeat(3).generate(STORY, 8, cache="require"),
    ),
    "a cache that some steps break": (
        "cache='require'",
        lambda m: trace(m).skip(3, steps=[1]).generate(STORY, 8, cache="require"),
    ),
}


@pytest.mark.parametrize("case", AR_RUNS)
def test_a_decoding_run_that_cannot_be(ar: dlens.Model, case: str) -> None:
    came, action = AR_RUNS[case]
    ar.memo.clear()
    with unchecked(), refused(ar, IndexError if "last" in case else ValueError, came):
        action(ar)


def test_a_mask_token_in_the_prompt(diffusion: dlens.Model) -> None:
    mask = diffusion.family.mask_token_id
    with refused(diffusion, ValueError, f"prompt 1 holds the mask token ({mask}) 2 times"):
        trace(diffusion).ablate_outlier().generate([[5, 6], [5, mask, mask]], 8)
    assert trace(diffusion).forward([5, mask]).n_steps == 1


def test_a_missing_tokenizer(diffusion: dlens.Model) -> None:
    model = dlens.load(fresh(diffusion.module))
    message = {"role": "user", "content": "hi"}
    for inputs, what in ((STORY, "text"), ([STORY], "text"), ([message], "chat messages")):
        with refused(model, ValueError, f"no tokenizer and got {what}"):
            trace(model).forward(inputs)
        with refused(model, ValueError, f"no tokenizer and got {what}"):
            trace(model).generate(inputs, 4)
    for chain, needed in (
        (trace(model).ablate_outlier(), "the outlier channel is found on text; load with tokenizer=, or name"),
        (trace(model).ablate(3, value="mean"), "value='mean' is measured on text; load with tokenizer=, or give"),
        (trace(model).ablate_outlier(5, value="mean"), "value='mean' is measured on text"),
    ):
        with refused(model, ValueError, "no tokenizer to read the calibration text"):
            try:
                chain.forward([5, 6])
            except ValueError as error:
                assert f"; expected one, as {needed}" in str(error)
                raise
    with refused(model, ValueError, "eos_inf=True"):
        bare = dataclasses.replace(model, module=model.module)
        bare.config.eos_token_id = None
        trace(bare).generate([5, 6], 4, sampler=LLaDA(eos_inf=True))


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


def test_a_hook_that_writes_the_pattern(diffusion: dlens.Model) -> None:
    model = dlens.load("trio/diffusion", attn_implementation="eager")
    with pytest.raises(ValueError) as caught:
        trace(model).hook("blocks.3.attn.hook_pattern", lambda value, hook: value * 0).forward(STORY)
    assert_three_parts(str(caught.value), "changed the pattern")
    trace(model).hook("pattern", lambda value, hook: None).forward(STORY)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
@pytest.mark.parametrize("point", ["embed", "blocks.2.hook_attn_out", "blocks.2.hook_resid_post", "logits"])
def test_a_hook_that_returns_a_wrong_shape(name: str, point: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).swap(4, 5).hook(point, lambda value, hook: value[..., 1:])
    for run in (chain.forward, lambda ids: chain.generate(ids, 2)):
        with untouched(model), pytest.raises(ValueError) as caught:
            run(STORY)
        assert_three_parts(str(caught.value), f"hook_{point.split('hook_')[-1]} returned shape (1, ")


NESTED: dict[str, Action] = {
    "with operations": lambda m: trace(m).skip(3).forward(STORY),
    "without operations": lambda m: trace(m).forward(STORY),
    "a generation": lambda m: trace(m).generate(STORY, 2),
    "the module itself": lambda m: trace(dlens.load(m.module, verify=False)).skip(3).forward([5, 6]),
}


@pytest.mark.parametrize("case", NESTED)
def test_a_run_inside_a_run(diffusion: dlens.Model, case: str) -> None:
    swapped = trace(diffusion).swap(2, 5)
    chain = swapped.hook("blocks.4.hook_resid_post", lambda value, hook: NESTED[case](diffusion) and None)
    with untouched(diffusion), pytest.raises(RuntimeError) as caught:
        chain.forward(STORY)
    assert_three_parts(str(caught.value), "is running already")
    for outer in (swapped, trace(diffusion)):
        with untouched(diffusion), pytest.raises(RuntimeError) as caught:
            outer.generate(STORY, 2, on_step=lambda view: NESTED[case](diffusion))
        assert_three_parts(str(caught.value), "is running already")


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_the_module_called_between_steps(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).swap(2, 5).capture("resid_post")
    with untouched(model), pytest.raises(RuntimeError) as caught:
        chain.generate(STORY, 3, on_step=lambda view: model.module(input_ids=view.tokens, use_cache=False))
    assert_three_parts(str(caught.value), "called between steps 0 and 1")


@pytest.mark.parametrize("busy", [True, False])
def test_a_run_of_another_model_inside_a_run(diffusion: dlens.Model, ar: dlens.Model, busy: bool) -> None:
    inner = (trace(ar).skip([3]) if busy else trace(ar)).capture("logits")
    outer = trace(diffusion).swap(2, 5)
    seen: list[torch.Tensor] = []

    def run(*_: Any) -> None:
        seen.append(inner.forward(STORY)["logits"])

    with untouched(diffusion), untouched(ar):
        record = outer.hook("blocks.4.hook_resid_post", run).capture("logits").generate(STORY, 2, on_step=run)
    assert torch.equal(record["logits"], outer.capture("logits").generate(STORY, 2)["logits"])
    assert len(seen) == 4 and all(torch.equal(logits, inner.forward(STORY)["logits"]) for logits in seen)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_an_operation_that_found_nothing_to_do(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).capture("logits").steer(ones(192), layers=3, tokens="decoded")
    with untouched(model), pytest.raises(dlens.NeverFired) as caught:
        chain.forward(STORY)
    assert_three_parts(str(caught.value), "'add 1 x a vector [192] to resid_post of layers 3 on decoded tokens'")
    assert torch.equal(caught.value.record["logits"], trace(model).capture("logits").forward(STORY)["logits"])

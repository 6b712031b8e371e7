"""Verbs refuse what they can check, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import ones

import dlens
from dlens import trace
from dlens.ops.base.op import Touch
from dlens.ops.base.target import Target
from dlens.ops.skip import Skip
from tests.refusing import STORY, WRONG, Action, assert_three_parts, refused
from tests.unchecked import unchecked

NAME = "blocks.5.hook_resid_post"


@dataclass(frozen=True, kw_only=True)
class Writer(dlens.Op):
    """It says that it writes, and has nothing to write."""

    def words(self) -> str:
        return "write"

    def touches(self, target: Target) -> tuple[Touch, ...]:
        return (Touch("resid_post", (1,), "write"),)


@dataclass(frozen=True, kw_only=True)
class EveryOther(dlens.Op):
    """Every other block is skipped, the first runs twice."""

    def words(self) -> str:
        return "skip every other block"

    def structure(self, target: Target) -> dlens.Structure:
        return dlens.Structure(skips=dict.fromkeys(range(1, target.n_layers, 2), "block"), runs={0: 2})


def test_an_operation_of_ones_own_equals_the_verbs(diffusion: dlens.Model, ar: dlens.Model) -> None:
    for model in (diffusion, ar):
        own = trace(model).apply(EveryOther()).capture("resid_post").generate(STORY, 4)
        verbs = trace(model).skip(range(1, 16, 2)).repeat(0).capture("resid_post").generate(STORY, 4)
        assert torch.equal(own.tokens, verbs.tokens) and torch.equal(own["resid_post"], verbs["resid_post"])
        assert (own.flops, own.saved_flops) == (verbs.flops, verbs.saved_flops)
        assert own.notes == tuple(note.replace("run layer 0 2 times", "skip every other block") for note in verbs.notes)
    with pytest.raises(ValueError, match="'skip every other block' and 'capture z of layers 3' cannot both hold: z of"):
        trace(diffusion).apply(EveryOther()).capture("z", layers=[3])


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
    "at a word": (ValueError, "at='residual'", lambda m: trace(m).steer(ones(192), at="residual")),
    "at the embedding": (ValueError, "at='embed'", lambda m: trace(m).ablate(None, at="embed")),
    "at the scale": (ValueError, "at='ln1_scale'", lambda m: trace(m).ablate(None, at="ln1_scale")),
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
    "no operation": (ValueError, "apply got 'skip'", lambda m: trace(m).apply("skip")),  # pyright: ignore
    "a class of operations": (ValueError, "apply got <class", lambda m: trace(m).apply(Skip)),  # pyright: ignore
    "an operation beyond": (IndexError, "layer 16", lambda m: trace(m).apply(Skip(layers=(16,)))),
    "a writer without a value": (ValueError, "a Writer", lambda m: trace(m).apply(Writer())),
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
}


@pytest.mark.parametrize("case", FIXES)
def test_the_fix_is_the_usual_one(diffusion: dlens.Model, case: str) -> None:
    fix, action = FIXES[case]
    with unchecked(), pytest.raises((ValueError, IndexError)) as caught:
        action(diffusion)
    assert fix in str(caught.value)


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


def test_what_a_verb_was_given_can_change_afterwards(diffusion: dlens.Model) -> None:
    layers, vector, steps = [2], ones(192), [0]
    chain = trace(diffusion).steer(vector, layers=layers, steps=steps)
    written = str(chain), chain.ops[0].to_json()
    layers.append(5)
    steps.append(1)
    vector.zero_()
    assert (str(chain), chain.ops[0].to_json()) == written
    moved = chain.capture("resid_post").forward(STORY)["resid_post"]
    clean = trace(diffusion).capture("resid_post").forward(STORY)["resid_post"]
    assert torch.allclose(moved[2], clean[2] + 1) and torch.equal(moved[:2], clean[:2])


def test_a_plan_with_layers_is_skipped_like_its_layers(diffusion: dlens.Model) -> None:
    plan = SimpleNamespace(layers=(4, 9))
    assert trace(diffusion).skip(plan).ops == trace(diffusion).skip([4, 9]).ops


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_point_is_a_word(wrong: Any, ar: dlens.Model) -> None:
    chain = dlens.trace(ar)
    for verb in (lambda: chain.ablate(1, 2, at=wrong), lambda: chain.steer(torch.ones(192), 1, at=wrong)):
        with unchecked(), pytest.raises(ValueError) as caught:
            verb()
        assert_three_parts(str(caught.value), "at=")

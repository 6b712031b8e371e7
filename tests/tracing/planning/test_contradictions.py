"""Operations that cannot both hold, and those that can."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest

import dlens
from dlens import trace
from tests.refusing import STORY, Action, assert_three_parts, refused

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


def contradicts(verb: Callable[[], dlens.Trace], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verb()


def test_places_that_swaps_join_belong_to_two_blocks_where_rows_disagree(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).swap(2, 7, noise=(0.3, 0.8)).swap(7, 9)
    for layer in (2, 7, 9):
        point = f"blocks.{layer}.hook_attn_out"
        contradicts(partial(trace.capture, point), f"attn_out of layer {layer} would belong to two blocks")
        contradicts(partial(trace.skip, [layer], part="mlp"), "half of a block cannot be skipped")
        contradicts(partial(trace.repeat, layer), f"layer {layer} is repeated and swapped row by row")
    mask = diffusion.family.mask_token_id
    record = trace.capture("blocks.8.hook_attn_out").forward([[5, mask, mask], [5, 6, 7]])
    assert record["blocks.8.hook_attn_out"].shape == (2, 3, 192)


def test_a_name_stands_for_one_capture_whatever_the_steps(diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="record\\['resid_post'\\] is asked for twice"):
        dlens.trace(diffusion).capture("resid_post", steps=[0]).capture("resid_post", steps=[1])

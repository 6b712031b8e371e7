"""Knockout on hand-written numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dlens.axes import hook_name
from dlens.ops.base.scope import Scope
from dlens.ops.knockout import Knockout
from tests.ops.targets import AR, DIFFUSION, place


def test_scores_become_minus_infinity() -> None:
    scores = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert torch.equal(Knockout().edit(scores, place(point="attn_scores")), torch.full((1, 2, 2, 2), -torch.inf))
    assert scores.isfinite().all()


def test_queries_are_the_tokens_and_keys_the_sources() -> None:
    op = Knockout(source="prompt", tokens="masked", layers=(1,), heads=(0,))
    assert (op.selection(), op.sources(), op.at) == ("masked", "prompt", "attn_scores")
    (touch,) = op.touches(DIFFUSION)
    assert (hook_name(touch.point, 1), touch.layers, touch.use) == ("blocks.1.attn.hook_attn_scores", (1,), "write")
    assert op.changes(DIFFUSION)


def test_words_and_plan() -> None:
    op = Knockout(source="prompt", tokens=(4,), layers=(1, 2), heads=(0, 3), scope=Scope(noise=(0.5, 1)))
    words = "knock prompt tokens out of heads 0, 3 of attn_scores of layers 1, 2 on positions 4 at noise 0.5 to 1"
    assert op.words() == words
    expected = {"op": "knockout", "source": "prompt tokens", "at": "attn_scores", "layers": [1, 2]}
    assert op.to_json() == expected | {"tokens": "positions 4", "heads": [0, 3], "noise": [0.5, 1]}


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "source": ({"source": "first"}, ValueError, "tokens='first'; expected one of all, prompt"),
    "target": ({"tokens": "first"}, ValueError, "tokens='first'; expected one of all, prompt"),
    "no source": ({"source": ()}, ValueError, "names no position"),
    "layer": ({"layers": (4,)}, IndexError, "layer 4 of tiny"),
    "head": ({"heads": (2,)}, IndexError, "head 2 at attn_scores; expected 0 to 1, as it has 2 heads"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_there_is_refused(case: str) -> None:
    changes, error, words = BAD[case]
    with pytest.raises(error, match=words):
        Knockout(**changes).check(replace(DIFFUSION, n_heads=2))


def test_masked_sources_need_a_diffusion_model() -> None:
    Knockout(source="masked").check(DIFFUSION)
    with pytest.raises(ValueError, match="tokens='masked' on tiny-ar; expected a diffusion model"):
        Knockout(source="masked").check(AR)


def test_a_model_without_scores_says_why() -> None:
    target = replace(DIFFUSION, absent={"attn_scores": "its code computes attention by itself"})
    with pytest.raises(ValueError, match="tiny has no attn_scores: its code computes attention by itself"):
        Knockout().check(target)

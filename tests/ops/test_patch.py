"""Patch on hand-written numbers."""

import pytest
import torch

from dlens.ops.patch import Patch, Source
from tests.ops.targets import DIFFUSION, VALUE, place

# [step 2, layer 2, batch 1, position 2, d_model 3]: 100 x step + 10 x layer index + position
SOURCE = (
    torch.tensor([0.0, 100.0])[:, None, None, None, None]
    + torch.tensor([0.0, 10.0])[:, None, None, None]
    + torch.tensor([0.0, 1.0])[:, None]
).expand(2, 2, 1, 2, 3)
REAL = torch.ones(1, 2, dtype=torch.bool)


def patch(layers=(1, 3), tokens="all", **changes):
    facts = {
        "values": SOURCE,
        "layers": (1, 3),
        "kind": "denoising",
        "steps": (2, 5),
        "real": REAL,
        "width": 2,
        "padding": ~REAL,
        "n_steps": 6,
        "planned_steps": 8,
    }
    return Patch(source=Source(**(facts | changes)), layers=layers, tokens=tokens)


def test_values_come_from_the_same_layer_and_step():
    op = patch()
    op.check(DIFFUSION)
    assert op.edit(VALUE, place(layer=1, step=2)).tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert op.edit(VALUE, place(layer=3, step=5)).tolist() == [[[110, 110, 110], [111, 111, 111]]]


def test_one_step_serves_all():
    op = patch(values=SOURCE[1:], steps=None)
    assert op.edit(VALUE, place(layer=3, step=9)).tolist() == [[[110, 110, 110], [111, 111, 111]]]


def test_a_window_takes_its_own_columns():
    edited = patch().edit(VALUE[:, 1:], place(layer=1, step=5, columns=slice(1, 2)))
    assert edited.tolist() == [[[101, 101, 101]]]


def test_padding_and_the_unconditional_half_keep_their_values():
    op = patch(real=torch.tensor([[False, True]]))
    edited = op.edit(VALUE.repeat(2, 1, 1), place(layer=1, step=2, halves=2))
    assert edited.tolist() == [[[1, 2, 3], [1, 1, 1]], [[1, 2, 3], [4, 5, 6]]]


def test_what_comes_after_the_end_of_the_other_run_keeps_its_value():
    longer = torch.cat([VALUE, VALUE], dim=1)
    edited = patch().edit(longer, place(layer=1, step=5, columns=slice(0, 4)))
    assert edited.tolist() == [[[100] * 3, [101] * 3, *VALUE[0].tolist()]]
    assert torch.equal(patch().edit(VALUE, place(layer=1, step=5, columns=slice(2, 4))), VALUE)
    assert patch().edit(VALUE, place(layer=1, step=6)) is VALUE


def test_words_and_plan():
    assert patch(tokens="masked").words() == "patch resid_post of layers 1, 3 on masked tokens from another run"
    expected = {"op": "patch", "at": "resid_post", "layers": [1, 3], "tokens": "all tokens"}
    assert patch().to_json() == expected


def test_what_the_record_lacks_raises():
    with pytest.raises(ValueError, match=r"lacks layers \[0, 2\] of resid_post; expected every layer .*; capture them"):
        patch(layers=(0, 1, 2)).check(DIFFUSION)
    with pytest.raises(ValueError, match="has d_model 2; expected 3; patch between runs of models of one width"):
        patch(values=SOURCE[..., :2]).check(DIFFUSION)

"""Patch on hand-written numbers."""

import pytest
import torch

from dlens.ops.base.target import RunShape
from dlens.ops.patch import Patch, Source, as_place_map
from tests.ops.targets import DIFFUSION, VALUE, place

# [step 2, layer 2, batch 1, position 2, d_model 3]: 100 x step + 10 x layer index + position
SOURCE = (
    torch.tensor([0.0, 100.0])[:, None, None, None, None]
    + torch.tensor([0.0, 10.0])[:, None, None, None]
    + torch.tensor([0.0, 1.0])[:, None]
).expand(2, 2, 1, 2, 3)
REAL = torch.ones(1, 2, dtype=torch.bool)


def patch(layers=(1, 3), tokens="all", maps=None, **changes):
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
    return Patch(source=Source(**(facts | changes)), layers=layers, tokens=tokens, **(maps or {}))


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


def test_layers_and_steps_come_from_others():
    op = patch(layers=(0,), maps={"from_layers": {0: 3}, "from_steps": {4: 5, 0: 2}})
    op.check(DIFFUSION)
    assert op.edit(VALUE, place(layer=0, step=4)).tolist() == [[[110] * 3, [111] * 3]]
    assert op.edit(VALUE, place(layer=0, step=0)).tolist() == [[[10] * 3, [11] * 3]]
    assert op.words().endswith("of layers 0 from another run, layers 0 from 3, steps 4 from 5, 0 from 2")
    assert op.details() == {"from_layers": [[0, 3]], "from_steps": [[4, 5], [0, 2]]}


def test_positions_come_from_others():
    maps = {"from_positions": {0: 1, 3: 0, 9: 0}}
    longer = torch.cat([VALUE, VALUE], dim=1)
    edited = patch(maps=maps).edit(longer, place(layer=1, step=2, columns=slice(0, 4)))
    assert edited.tolist() == [[[1] * 3, [4, 5, 6], [1, 2, 3], [0] * 3]]
    later = patch(maps=maps).edit(longer[:, 2:], place(layer=1, step=2, columns=slice(2, 4)))
    assert later.tolist() == [[[1, 2, 3], [0] * 3]]
    # Padding of both: position 0 is the second column; what the other run does not have stays.
    padded = patch(maps={"from_positions": {0: 0}}, padding=torch.tensor([[True]]), real=torch.tensor([[False, True]]))
    assert padded.edit(VALUE, place(layer=1, step=2)).tolist() == [[[1, 2, 3], [1] * 3]]
    both = patch(maps={"from_positions": {0: 0}}).edit(VALUE.repeat(2, 1, 1), place(layer=3, step=2, halves=2))
    assert both.tolist() == [[[10] * 3, [4, 5, 6]], VALUE[0].tolist()]


def test_maps_are_checked():
    with pytest.raises(ValueError, match=r"lacks layers \[2\] of resid_post"):
        patch(layers=(0,), maps={"from_layers": {0: 2}}).check(DIFFUSION)
    with pytest.raises(ValueError, match=r"from_steps names steps \[3\] of the other run; expected some of \[2, 5\]"):
        patch(maps={"from_steps": {0: 3}}).check(DIFFUSION)
    with pytest.raises(IndexError, match="from_positions names position 2 of the other run; expected 0 to 1"):
        patch(maps={"from_positions": {0: 2}}).check(DIFFUSION)
    assert as_place_map("steps", {1: 2}, None) == {1: 2} and as_place_map("steps", None, 3) is None
    for wrong, message in (
        (3, "from_steps=3; expected a mapping of steps"),
        ({}, "from_steps={}; expected a mapping"),
        ({1: -1}, "from_steps names -1; expected numbers from 0"),
        ({1: 0.5}, "from_steps 0.5; expected a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            as_place_map("steps", wrong, None)
    with pytest.raises(ValueError, match="from_positions={0: 1} beside 'masked'; expected a map alone.*leave tokens="):
        as_place_map("positions", {0: 1}, "masked")


def test_runs_of_unlike_kinds_and_lengths_fit_where_a_map_says_so():
    steps, positions = {"from_steps": {0: 2}}, {"from_positions": {0: 1}}
    forward, longer = RunShape("forward", 1, 1, 2, 2), RunShape("denoising", 8, 1, 4, 2)
    real = torch.ones(1, 4, dtype=torch.bool)
    patch(maps=steps).check_run(forward, frozenset({0}), REAL)
    patch(maps=positions).check_run(longer, frozenset({2}), real)
    patch(maps=steps | positions).check_run(RunShape("forward", 1, 1, 4, 4), frozenset({0}), real)
    with pytest.raises(ValueError, match="or say with from_steps= which step is which"):
        patch().check_run(forward, frozenset({0}), REAL)
    with pytest.raises(ValueError, match="1 rows of 2 computed positions"):
        patch(maps=steps).check_run(RunShape("forward", 1, 1, 4, 4), frozenset({0}), real)
    padded = real.clone()
    padded[0, 0] = False
    with pytest.raises(ValueError, match=r"has \[0\] positions of padding in its rows; expected \[1\]"):
        patch(maps=positions).check_run(longer, frozenset({2}), padded)

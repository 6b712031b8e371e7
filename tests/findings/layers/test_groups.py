"""Rows of records, models, streams and tensors, prompt by prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.findings.layers.groups import Asked, source_of
from tests.reference import shallow

ASKED = Asked("layer", "resid_post", None, None, "all", ["Once upon a time", "The dog"], 1)


@pytest.fixture(scope="module")
def small(diffusion: dlens.Model) -> dlens.Model:
    return shallow(diffusion, 3)


@pytest.fixture(scope="module")
def record(small: dlens.Model) -> dlens.Record:
    return dlens.trace(small).capture("resid_post").generate(ASKED.prompts, 4)


def test_rows_of_a_record_at_each_step(record: dlens.Record) -> None:
    source = source_of(record, replace(ASKED, layers=[2, 0], steps=[1, 3]))
    groups = list(source.groups())
    assert source.entries == (2, 0) and [group.key for group in groups] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    real = ~record.is_pad[1]
    assert torch.equal(groups[3].values, record["resid_post"][3, [2, 0], 1][:, real])
    assert groups[3].position.tolist() == [*range(int(real.sum()))]
    n_prompt = int(record.is_prompt[1].sum())
    assert groups[3].token.tolist() == [*record.tokens[1, record.is_prompt[1]].tolist(), *[-1] * 4]
    assert int((groups[3].token >= 0).sum()) == n_prompt


@pytest.mark.parametrize("tokens", ["prompt", "masked", "decoded"])
def test_positions_in_a_state(record: dlens.Record, small: dlens.Model, tokens: str) -> None:
    generated = ~record.is_prompt & ~record.is_pad
    masked = (record.canvas[1] == small.family.mask_token_id) & generated
    expected = {"prompt": record.is_prompt, "masked": masked, "decoded": generated & ~masked}[tokens]
    groups = list(source_of(record, replace(ASKED, tokens=tokens, steps=1)).groups())
    assert [len(group.position) for group in groups] == expected.sum(-1).tolist()
    assert torch.equal(groups[0].values, record["resid_post"][1, :, 0][:, expected[0]])


def test_steps_of_one_layer(record: dlens.Record) -> None:
    source = source_of(record, replace(ASKED, by="step", layers=1))
    groups = list(source.groups())
    assert source.entries == (0, 1, 2, 3) and [group.key for group in groups] == [(0, 1), (1, 1)]
    assert torch.equal(groups[1].values, record["resid_post"][:, 1, 1][:, ~record.is_pad[1]])


def test_what_was_not_captured_is_left_out(small: dlens.Model) -> None:
    record = dlens.trace(small).capture("resid_post", tokens=[0, 2]).forward(ASKED.prompts)
    assert [group.position.tolist() for group in source_of(record, ASKED).groups()] == [[0, 2], [0]]


def test_a_model_and_its_stream_have_the_same_rows(small: dlens.Model, tmp_path: Path) -> None:
    kept = (
        dlens.trace(small).capture("resid_post", layers=[0, 2]).stream(ASKED.prompts, tmp_path / "kept", batch_size=1)
    )
    streamed = list(source_of(kept, ASKED).groups())
    own = list(source_of(small, replace(ASKED, layers=[0, 2])).groups())
    for one, other in zip(streamed, own, strict=True):
        assert one.key == other.key and torch.equal(one.values, other.values)
        assert torch.equal(one.token, other.token) and torch.equal(one.position, other.position)


def test_masks_of_a_model_are_known(small: dlens.Model) -> None:
    mask = small.family.mask_token_id
    asked = replace(ASKED, prompts=[[5, mask, 7], [mask, mask]], tokens="masked")
    assert [group.position.tolist() for group in source_of(small, asked).groups()] == [[1], [0, 1]]
    visible = list(source_of(small, replace(asked, tokens="all")).groups())
    assert [group.token.tolist() for group in visible] == [[5, -1, 7], [-1, -1]]


def test_points_with_heads_and_outside_of_blocks(small: dlens.Model) -> None:
    (group, _) = source_of(small, replace(ASKED, at="z", layers=[1])).groups()
    assert group.values.shape[0] == 1 and group.values.shape[-1] == 192
    assert source_of(small, replace(ASKED, at="embed")).entries == (0,)
    assert source_of(small, replace(ASKED, at="blocks.2.hook_resid_post")).entries == (2,)


def test_tensors(small: dlens.Model) -> None:
    (group,) = source_of(torch.ones(5, 2), ASKED).groups()
    assert group.values.shape == (1, 5, 2) and source_of(torch.ones(3, 5, 2), ASKED).entries == (0, 1, 2)


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ("tensor", {}, r"got a torch.int64 tensor of shape \(3,\); expected real numbers \[row, width\]"),
        ("model", {"by": "step"}, "by='step' of .*; expected the record of a denoising run"),
        ("model", {"steps": 1}, "steps=.* of .*; expected the record of a run, as models are compared"),
        ("record", {"by": "step"}, "by='step' of 3 layers; expected a denoising run at one layer"),
        ("record", {"by": "step", "layers": 1, "tokens": "masked"}, "tokens='masked' with by='step'; expected 'all'"),
        ("forward", {"by": "step", "layers": 1}, "by='step' of a forward run, which has no axis of steps"),
        ("forward", {"tokens": "masked"}, "tokens='masked' of the record of a forward run of .*; expected 'all'"),
        ("pattern", {"at": "pattern"}, "at='pattern' has an axis of keys; expected a point whose rows"),
    ],
)
def test_what_cannot_be_compared(
    small: dlens.Model, record: dlens.Record, given: str, changes: dict[str, Any], message: str
) -> None:
    held: dict[str, Any] = {
        "tensor": torch.arange(3),
        "model": small,
        "record": record,
        "forward": dlens.trace(small).capture("resid_post").forward("The dog"),
        "pattern": dlens.trace(small).capture("pattern").forward("The dog"),
    }
    with pytest.raises(ValueError, match=message):
        source_of(held[given], replace(ASKED, **changes))


def test_layers_and_steps_that_are_not_there(small: dlens.Model) -> None:
    record = dlens.trace(small).capture("resid_post", layers=[1], steps=[0]).generate("The dog", 2)
    with pytest.raises(IndexError, match=r"layers \[0\]; expected some of \[1\], which are there; name these"):
        source_of(record, replace(ASKED, layers=0))
    with pytest.raises(IndexError, match=r"steps \[1\] of a record of resid_post; expected some of \[0\]"):
        source_of(record, replace(ASKED, steps=1))
    with pytest.raises(KeyError, match="'z' is not in this record"):
        source_of(record, replace(ASKED, at="z"))

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import dlens
from dlens.findings.circuits.cells import AT, Blend, Cells, PatchCells, cells_of
from tests.findings.circuits.conftest import CLEAN, CORRUPTED
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_axes_that_stay_by_default(model: dlens.Model) -> None:
    target = dlens.trace(model).target
    kept = {at: cells_of(target, at).by for at in AT}
    assert {at for at, by in kept.items() if by == ("layer", "position")} == {
        "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"
    }  # fmt: skip
    assert kept["embed"] == ("position",) and kept["mlp_pre"] == kept["mlp_post"] == ("layer", "neuron")
    assert {at for at, by in kept.items() if by == ("layer", "kv_head")} == {"k", "v", "rot_k"}
    assert {at for at, by in kept.items() if by == ("layer", "head")} == {"q", "rot_q", "pattern", "z", "result"}


def test_axes_are_in_one_order_and_layers_counted_from_the_end(model: dlens.Model) -> None:
    cells = cells_of(dlens.trace(model).target, "pattern", layers=[-1], by=("position_b", "head", "layer"))
    assert cells.by == ("layer", "position_b", "head") and cells.layers == (3,)


def test_values_are_summed_over_the_other_axes() -> None:
    values = torch.arange(24.0).reshape(2, 1, 3, 4)  # layer pair position d_model
    cells = Cells("resid_post", ("layer", "position"), (0, 1))
    assert torch.equal(cells.summed(values), values.permute(1, 0, 2, 3).sum(-1))
    other = values.clone()
    other[1, 0, 2, 3] += 1
    assert cells.differing(values, other) == [(1, 2)]


@pytest.mark.parametrize(
    ("at", "layers", "by", "came", "expected"),
    [
        ("resid_pots", None, None, "at='resid_pots'", "a hook point that is written: "),
        ("attn_scores", None, None, "at='attn_scores'", "a hook point that is written: "),
        ("embed", [3], None, "layers=[3] at embed, which has none", "no layers; "),
        ("z", None, ("head",), "by=('head',) at z", "some of layer, position, head, each once, with layer, as each "),
        ("z", None, ("layer", "neuron"), "by=('layer', 'neuron') at z", "some of layer, position, head, each once"),
        ("z", None, ("layer", "head", "head"), "by=('layer', 'head', 'head') at z", "some of layer, "),
        ("z", None, (), "by=() at z", "some of layer, "),
        ("embed", None, 5, "by=5 at embed", "some of position, each once; "),
    ],
)
def test_what_is_not_there_is_refused(
    model: dlens.Model, at: str, layers: Any, by: Any, came: str, expected: str
) -> None:
    with unchecked(), pytest.raises(ValueError, match=re.escape(f"{came}; expected {expected}")) as caught:
        cells_of(dlens.trace(model).target, at, layers, by)
    assert_three_parts(str(caught.value), came)


def test_each_row_takes_its_own_cell(model: dlens.Model) -> None:
    trace = dlens.trace(model).capture("resid_post")
    own, other = (trace.forward(rows)["resid_post"] for rows in (CLEAN, CORRUPTED))
    cells = cells_of(trace.target, "resid_post")
    patch = PatchCells(layers=(1, 2), cells=cells, which=((1, 3), (2, 5)), source=other)
    found = dlens.trace(model).apply(patch).capture("resid_post").forward(CLEAN * 2)["resid_post"]
    assert torch.equal(found[1, :2, 3], other[1, :, 3]) and torch.equal(found[2, 2:, 5], other[2, :, 5])
    assert torch.equal(found[1, :2, :3], own[1, :, :3]) and torch.equal(found[1, :2, 4:], own[1, :, 4:])
    assert torch.equal(found[1, 2:], own[1]) and torch.equal(found[2, 2:, :5], own[2, :, :5])
    assert patch.words() == "exchange 2 cells of resid_post of layers 1, 2 for those of another run"


def test_cells_keep_to_their_columns_where_padding_is_not_honoured(model: dlens.Model) -> None:
    alone = dlens.load(model.module)
    object.__setattr__(alone, "honours_padding", False)
    trace = dlens.trace(alone).capture("resid_post")
    rows, others = [[5, 6, 7, 8], [9, 10]], [[5, 6, 20, 8], [9, 30]]
    other = trace.forward(others)["resid_post"]
    cells = cells_of(trace.target, "resid_post")
    patch = PatchCells(layers=(1,), cells=cells, which=((1, 3), (1, 0)), source=other)
    found = dlens.trace(alone).apply(patch).capture("resid_post").forward(rows * 2)["resid_post"][1]
    assert torch.equal(found[:2, 3], other[1, :, 3]) and torch.equal(found[2, 0], other[1, 0, 0])
    torch.testing.assert_close(found[3], trace.forward(rows)["resid_post"][1, 1])


def test_embeddings_are_mixed(model: dlens.Model) -> None:
    trace = dlens.trace(model).capture("embed")
    own, other = (trace.forward(rows)["embed"] for rows in (CLEAN, CORRUPTED))
    mixed = dlens.trace(model).apply(Blend(source=other, share=0.25)).capture("embed").forward(CLEAN)["embed"]
    torch.testing.assert_close(mixed, other + (own - other) / 4)
    assert Blend(source=other, share=0.25).words() == "keep 25% of embed, the rest from another text"

"""Records: names, axes, coordinates, and what is asked of them that they do not hold."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import dlens
from tests.refusing import assert_three_parts
from tests.tracing.plain import PROMPTS


def test_names_dims_and_coords(record: dlens.Record) -> None:
    assert record.dims("resid_post") == ("step", "layer", "batch", "position", "d_model")
    assert record["resid_post"].shape == (3, 2, 2, 18, 192)
    assert record.coords("resid_post")["layer"] == [0, 15]
    assert record.coords("resid_post")["step"] == [2, 3, 4]
    assert record.dims("blocks.4.hook_attn_out") == ("step", "batch", "position", "d_model")
    assert torch.equal(record["blocks.15.hook_resid_post"], record["resid_post"][:, 1])
    assert record.dims("blocks.15.hook_resid_post") == ("step", "batch", "position", "d_model")
    with pytest.raises(KeyError, match="not in this record"):
        record["mlp_out"]
    with pytest.raises(KeyError, match="not in this record"):
        record["blocks.7.hook_resid_post"]


def test_a_measure_is_shown_once(ar: dlens.Model) -> None:
    record = dlens.trace(ar).skip([3]).measure(dlens.Cosine()).forward("Once")
    assert [line for line in repr(record).splitlines() if "cosine" in line] == ["  measures: cosine"]
    assert "  skip layers 3" in repr(record)
    with pytest.raises(KeyError, match="'cka' was not measured; expected one of cosine; add .measure"):
        record.measures["cka"]


def test_knows_what_it_holds(record: dlens.Record) -> None:
    assert sorted(record) == ["blocks.4.hook_attn_out", "resid_post"]
    assert "resid_post" in record and "blocks.15.hook_resid_post" in record and "blocks.-1.hook_resid_post" in record
    assert "mlp_out" not in record and "blocks.7.hook_resid_post" not in record
    assert "nonsense" not in record and 0 not in record


def test_knows_that_it_holds_nothing(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).forward("Once")
    assert list(record) == [] and "resid_post" not in record


def test_tokens_text_and_masks(record: dlens.Record, diffusion: dlens.Model) -> None:
    assert record.canvas is not None and record.canvas.shape == (8, 2, 18)
    mask = diffusion.family.mask_token_id
    assert (record.canvas == mask).sum((1, 2)).tolist() == [16, 14, 12, 10, 8, 6, 4, 2]
    assert record.is_pad.sum(1).tolist() == [6, 0] and record.is_prompt.sum(1).tolist() == [4, 10]
    assert "left-padded: 6 of 36 positions are padding" in repr(record)
    assert [diffusion.tokenizer.decode(row[-8:].tolist()) for row in record.tokens] == record.text
    assert sorted(record.committed_at[0, -8:].tolist()) == list(range(8))


def test_to_xarray_keeps_names_and_coordinates(record: dlens.Record) -> None:
    data = record.to_xarray()
    assert data["resid_post"].sel(layer=15, step=3).shape == (2, 18, 192)
    assert (data["tokens"].values == record.tokens.numpy()).all()


def test_negative_layers_of_full_names(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).capture("blocks.-1.hook_resid_post").forward(PROMPTS[0])
    assert torch.equal(record["blocks.-1.hook_resid_post"], record["blocks.15.hook_resid_post"])
    assert record.dims("blocks.-1.hook_resid_post") == ("batch", "position", "d_model")


def test_a_loaded_record_says_what_it_does_not_hold(record: dlens.Record, tmp_path: Path) -> None:
    record.save(tmp_path / "run")
    record = dlens.load_record(tmp_path / "run")
    with pytest.raises(KeyError) as caught:
        record["mlp_out"]
    assert_three_parts(caught.value.args[0], "'mlp_out'")
    with pytest.raises(KeyError):
        record["blocks.99.hook_resid_post"]
    with pytest.raises(ValueError, match="'attn_oot'"):
        record["attn_oot"]


def test_a_record_is_pickled_without_its_model(record: dlens.Record) -> None:
    again = pickle.loads(pickle.dumps(record))
    assert again.text == record.text and again.plan == record.plan and again.pieces == record.pieces
    assert (again.flops, again.saved_flops) == (record.flops, record.saved_flops)
    assert all(torch.equal(again[name], record[name]) for name in record) and set(again) == set(record)
    assert all(again.measures[key].identical(record.measures[key]) for key in record.measures)

"""Records: labelled, and whole."""

from __future__ import annotations

import pytest
import torch

import dlens
from dlens.samplers import LLaDA, Threshold
from dlens.tracing.records.text import MASK_SIGN
from tests.tracing.records.prompts import PROMPTS


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


def test_plan_names_the_outlier_that_was_found(record: dlens.Record, diffusion: dlens.Model) -> None:
    entry = record.plan[1]
    assert entry["op"] == "ablate_outlier"
    assert 0 < entry["share"] < 1
    energy = torch.zeros(192, dtype=torch.float64)
    from dlens.tracing.probes.calibration import calibration_texts

    shares = []
    for layer in range(15):
        energy = torch.zeros(192, dtype=torch.float64)
        for text in calibration_texts()[:12]:
            ids = diffusion.tokenizer(text)["input_ids"][:64]
            point = f"blocks.{layer}.hook_resid_post"
            energy += dlens.trace(diffusion).capture(point).forward(ids)[point][0].double().square().sum(0)
        shares.append(energy / energy.sum())
    share = torch.stack(shares).mean(0)
    assert entry["channel"] == int(share.argmax())
    assert abs(entry["share"] - float(share.max())) < 1e-6
    assert f"outlier channel {entry['channel']}" in repr(record)


def test_to_xarray_keeps_names_and_coordinates(record: dlens.Record) -> None:
    data = record.to_xarray()
    assert data["resid_post"].sel(layer=15, step=3).shape == (2, 18, 192)
    assert (data["tokens"].values == record.tokens.numpy()).all()


def test_every_step_can_be_watched(diffusion: dlens.Model, ar: dlens.Model) -> None:
    views = []
    record = dlens.trace(diffusion).generate(PROMPTS, 6, on_step=views.append)
    assert [view.step for view in views] == list(range(6)) and views[0].n_steps == 6
    assert torch.equal(views[-1].tokens, record.tokens)
    assert [view.text[0].count(MASK_SIGN) for view in views] == [5, 4, 3, 2, 1, 0]
    assert views[-1].text == record.text
    views.clear()
    record = dlens.trace(ar).generate(PROMPTS, 6, on_step=views.append)
    assert [view.step for view in views] == list(range(6))
    assert torch.equal(views[-1].tokens, record.tokens) and views[-1].text == record.text


def test_infilling_fills_the_masks_of_a_prompt(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer("Once upon a time there was a little girl named Lily.")["input_ids"]
    gap = list(ids)
    gap[4:7] = [diffusion.family.mask_token_id] * 3
    record = dlens.trace(diffusion).generate([gap, ids[:5]], 4, infill=True, sampler=LLaDA())
    assert record.canvas is not None
    assert not (record.tokens == diffusion.family.mask_token_id).any()
    assert (record.committed_at[0, 4:7] >= 0).all() and (record.committed_at[0, :4] == -1).all()
    only = dlens.trace(diffusion).generate([gap], 0, infill=True)
    assert only.n_steps == 3 and only.tokens.shape == (1, len(ids))


def test_text_of_infilled_rows_is_the_same_alone_and_in_a_batch(diffusion: dlens.Model) -> None:
    ids = diffusion.tokenizer("Once upon a time there was a little girl named Lily.")["input_ids"]
    mask, end = diffusion.family.mask_token_id, diffusion.eos_token_id
    short, long = [*ids[:3], mask], [*ids[:2], end, *ids[2:6], mask]
    together = dlens.trace(diffusion).generate([short, long], 8, infill=True)
    alone = dlens.trace(diffusion).generate([short], 8, infill=True)
    assert alone.text[0].startswith("Once upon a") and len(alone.text[0]) > 15
    assert together.text[0].startswith("Once upon a") and len(together.text[0]) > 15
    assert together.text[1].startswith("Once upon a")


def test_negative_layers_of_full_names(diffusion: dlens.Model) -> None:
    record = dlens.trace(diffusion).capture("blocks.-1.hook_resid_post").forward(PROMPTS[0])
    assert torch.equal(record["blocks.-1.hook_resid_post"], record["blocks.15.hook_resid_post"])
    assert record.dims("blocks.-1.hook_resid_post") == ("batch", "position", "d_model")


def test_an_early_end_trims_the_step_axis(diffusion: dlens.Model) -> None:
    record = (
        dlens.trace(diffusion).capture("resid_post", layers=[1]).generate(PROMPTS, 12, sampler=Threshold(threshold=0.3))
    )
    assert record.n_steps < record.planned_steps == 12
    assert record["resid_post"].shape[0] == record.n_steps == len(record.coords("resid_post")["step"])


def test_forward_of_unequal_prompts_hides_padding(diffusion: dlens.Model) -> None:
    together = dlens.trace(diffusion).capture("resid_post", "logits").forward(PROMPTS)
    assert together.text == [] and together.canvas is None
    for row, text in enumerate(PROMPTS):
        alone = dlens.trace(diffusion).capture("resid_post", "logits").forward(text)
        real = together.tokens.shape[1] - alone.tokens.shape[1]
        gap = together["resid_post"][:, row, real:] - alone["resid_post"][:, 0]
        assert gap.abs().max() < 1e-3
        assert together["resid_post"][:, row, :real].abs().sum() == 0

"""The outlier channel and its share, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dlens
from dlens.tracing.prepare import target_of
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.probes.outlier import channel_shares
from tests.reference import fresh


def test_plan_names_the_outlier_that_was_found(record: dlens.Record, diffusion: dlens.Model) -> None:
    entry = record.plan[1]
    assert entry["op"] == "ablate_outlier"
    assert 0 < entry["share"] < 1
    energy = torch.zeros(15, 192, dtype=torch.float64)
    for text in calibration_texts()[:12]:
        ids = diffusion.tokenizer(text)["input_ids"][:64]
        stream = dlens.trace(diffusion).capture("resid_post").forward(ids)["resid_post"]
        energy += stream[:15, 0].double().square().sum(1)
    share = (energy / energy.sum(1, keepdim=True)).mean(0)
    assert entry["channel"] == int(share.argmax())
    assert abs(entry["share"] - float(share.max())) < 1e-6
    assert f"outlier channel {entry['channel']}" in repr(record)


def test_shares_are_found_anew_when_the_weights_change(ar: dlens.Model) -> None:
    model = dlens.load(fresh(ar.module), tokenizer=ar.tokenizer)
    before = channel_shares(model, target_of(model))
    assert float(before.sum()) == pytest.approx(1) and torch.equal(before, channel_shares(model, target_of(model)))
    with torch.no_grad():
        model.embed.weight[:, 3] *= 1000  # pyright: ignore
    assert int(channel_shares(model, target_of(model)).argmax()) == 3


def test_the_mean_is_that_of_the_calibration_text(ar: dlens.Model) -> None:
    rows = [ar.tokenizer(text)["input_ids"][:64] for text in calibration_texts()[:12]]
    point = "blocks.4.hook_mlp_out"
    values = [dlens.trace(ar).capture(point).forward(row)[point][0].double() for row in rows]
    mean = torch.cat(values).mean(0).float()
    trace = dlens.trace(ar).ablate(4, [7, 9], "mean", at="mlp_out").capture(point)
    torch.testing.assert_close(trace.forward(rows[0])[point][0, 0, [7, 9]], mean[[7, 9]])


class Doubled(nn.Module):
    """A layer that a flag doubles, as an adapter would."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.enabled = base, True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) * (1 + self.enabled)


def test_means_are_found_anew_when_an_adapter_is_taken_away(ar: dlens.Model) -> None:
    module = fresh(ar.module)
    mlp = module.model.layers[2].mlp  # pyright: ignore
    mlp.up_proj = Doubled(mlp.up_proj)
    model = dlens.load(module, tokenizer=ar.tokenizer)

    def logits(of: dlens.Model) -> torch.Tensor:
        return dlens.trace(of).ablate(5, value="mean").capture("logits").forward("Once upon a time")["logits"]

    with_adapter = logits(model)
    mlp.up_proj.enabled = False
    without = logits(model)
    assert not torch.equal(with_adapter, without) and torch.equal(without, logits(ar))

"""The outlier channel and its share, by hand."""

from __future__ import annotations

import torch

import dlens


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

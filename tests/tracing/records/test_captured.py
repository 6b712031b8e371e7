"""A captured point: its axes, layers, steps and positions, by kind of run."""

from __future__ import annotations

import pytest

import dlens


@pytest.mark.parametrize("name", ["diffusion", "ar"])
def test_axes_of_a_generation(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    trace = dlens.trace(model).capture("resid_post", layers=[2, 5], steps=range(1, 3)).capture("logits")
    record = trace.capture("blocks.3.hook_mlp_out").generate([[5, 6, 7], [8]], 4)
    kept = record.captured
    assert set(kept) == {"resid_post", "logits", "blocks.3.hook_mlp_out"}
    denoising = name == "diffusion"
    lead = ("step",) if denoising else ()
    assert kept["resid_post"].dims == (*lead, "layer", "batch", "position", "d_model")
    assert kept["logits"].dims == (*lead, "batch", "position", "vocab")
    assert kept["blocks.3.hook_mlp_out"].dims == (*lead, "batch", "position", "d_model")
    assert kept["resid_post"].layers == (2, 5) and kept["logits"].layers == ()
    assert kept["blocks.3.hook_mlp_out"].layers == (3,)
    assert kept["resid_post"].steps == ((1, 2) if denoising else ())
    assert kept["resid_post"].positions == (tuple(range(7)) if denoising else (3, 4))
    for captured in kept.values():
        sizes = dict(zip(captured.dims, captured.values.shape, strict=True))
        assert sizes["position"] == len(captured.positions)
        assert sizes.get("layer", len(captured.layers)) == len(captured.layers)
        assert sizes.get("step", 0) == len(captured.steps) and captured.values.device.type == "cpu"

"""A trace is a value, and what it says of a run before it runs."""

from __future__ import annotations

import dlens
from dlens import trace
from tests.refusing import STORY


def test_a_trace_is_a_value_that_no_verb_changes(diffusion: dlens.Model) -> None:
    plain = trace(diffusion)
    skipped = plain.skip([3, -1], steps="early")
    longer = skipped.capture("resid_post", "logits").measure(dlens.Cosine())
    assert [len(chain.ops) for chain in (plain, skipped, longer)] == [0, 1, 4]
    assert longer.ops[:1] == skipped.ops and longer.model is diffusion
    assert str(longer).splitlines() == [
        "trace of trio/diffusion (16 layers, diffusion)",
        "  skip layers 3, 15 at steps early",
        "  capture resid_post",
        "  capture logits",
        "  measure cosine",
    ]


def test_a_model_is_taken_in_every_form(diffusion: dlens.Model) -> None:
    assert trace(diffusion).model is diffusion
    assert trace("trio/diffusion").target == trace(diffusion).target
    module = trace(diffusion.module)
    assert module.model.module is diffusion.module and module.ops == ()


def test_bytes_of_captures_are_those_that_a_run_takes(diffusion: dlens.Model) -> None:
    chain = trace(diffusion).capture("resid_post", "z", "mlp_post", layers=[0, 8], steps=range(2)).capture("logits")
    record = chain.generate(STORY, 4)
    assert chain.capture_bytes(STORY, 4) == sum(record[name].numel() * 4 for name in record)
    forward = trace(diffusion).capture("embed", "blocks.3.attn.hook_z")
    record = forward.forward(STORY)
    assert forward.capture_bytes(STORY) == sum(record[name].numel() * 4 for name in record)

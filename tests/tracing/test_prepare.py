"""What is checked of a model and a chain before a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import dlens
from dlens.models.families.decoder import llama_like
from tests.whole.architectures import CONFIGS, build
from tests.whole.operations import IDS


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_half_a_block_that_a_layout_names_no_modules_of_is_refused(part: Any) -> None:
    module = build(CONFIGS["qwen2"][0])
    layout = replace(llama_like(), attn_skip=(), mlp_skip=())
    family = dlens.Family(name="own", objective="autoregressive", shift=1, layout=layout)
    trace = dlens.trace(dlens.load(module, family=family))
    with pytest.raises(ValueError, match=f"names no {part}_skip; expected the modules .*; give the family a Layout"):
        trace.skip([1], part=part).forward(IDS)
    assert trace.skip([1]).forward(IDS).saved_flops > 0


def test_training_mode_is_refused() -> None:
    model = dlens.load(build(CONFIGS["gpt2"][0]))
    model.module.train()
    with pytest.raises(ValueError, match="in training mode"):
        dlens.trace(model).forward(IDS)

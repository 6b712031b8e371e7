"""What is checked of a model and a chain before a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import GPTNeoXConfig

import dlens
from dlens.models.families.decoder import llama_like
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.prepare import groups, target_of
from dlens.tracing.step.state import Group
from tests.whole.architectures import CONFIGS, SIZE, build
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


def test_facts_of_a_model() -> None:
    target = target_of(dlens.load(build(CONFIGS["gemma2"][0])))
    assert (target.n_layers, target.d_model, target.has_noise) == (4, 32, False)
    assert target.attention_types == ("sliding_attention", "full_attention") * 2
    assert not target.absent  # Gemma2 runs its attention as eager
    assert not target_of(dlens.load(build(CONFIGS["llama"][0]))).absent  # and Llama a fused kernel
    parallel = target_of(dlens.load(build(GPTNeoXConfig(**SIZE, use_parallel_residual=True))))
    assert list(parallel.absent) == ["resid_mid"] and "side by side" in parallel.absent["resid_mid"]


def test_prompts_run_as_one_or_in_groups_of_equal_length(ar: dlens.Model) -> None:
    batch = as_batch(ar, [[5, 6, 7], [8], [9, 10, 11]])
    ((group, ids, real),) = groups(ar, batch)
    assert group == Group((0, 1, 2), 0) and ids is batch.ids and real is batch.real
    deaf = replace(ar, honours_padding=False)
    found = list(groups(deaf, batch))
    assert [group for group, _, _ in found] == [Group((1,), 2), Group((0, 2), 0)]
    assert [ids.tolist() for _, ids, _ in found] == [[[8]], [[5, 6, 7], [9, 10, 11]]]
    assert all(bool(real.all()) for _, _, real in found)


def test_a_part_in_training_mode_is_named() -> None:
    module = build(CONFIGS["gpt2"][0])
    trace = dlens.trace(module)
    module.transformer.h[2].train()
    with pytest.raises(
        ValueError, match=r"is in training mode \(transformer.h.2.*\), where dropout makes .*; expected"
    ):
        trace.forward(IDS)
    module.eval()
    module.transformer.h[1].mlp.c_fc.train()  # drops nothing
    assert trace.forward(IDS).n_steps == 1

"""What a record says of a run that is over: padding, early ends, operations that did not act."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

import dlens
from dlens import trace
from dlens.samplers import Threshold
from tests.models.conftest import build
from tests.refusing import STORY, assert_three_parts
from tests.tracing.plain import DECODED, PROMPTS
from tests.untouched import untouched
from tests.whole.architectures import SIZE


def test_rows_that_end_are_padding_from_there_on(ar: dlens.Model) -> None:
    end = ar.eos_token_id

    def ends_row_one(value: Tensor, hook: Any) -> Tensor:
        if hook.step == 3:
            value[1, -1, end] = 1e9
        return value

    trace = dlens.trace(ar).hook("hook_logits", ends_row_one).capture("resid_post").measure(dlens.Cosine())
    record = trace.generate(PROMPTS, DECODED)
    width = record.tokens.shape[1] - DECODED
    assert record.tokens[1, width + 3] == end
    assert record.is_pad[1, width + 4 :].all() and not record.is_pad[0, width:].any()
    assert f"left-padded: {int(record.is_pad[:, :width].sum())} of {record.is_pad.numel()} positions" in repr(record)
    assert record.committed_at[1, width:].tolist() == [0, 1, 2, 3] + [-1] * (DECODED - 4)
    assert record["resid_post"][:, 1, width + 4 :].abs().max() == 0
    n = record.measures["cosine"]["n"].sel(state="decoded").isel(layer=0).values
    assert n.tolist() == [0, 3, 3, 3, 3, 2, 2, 2, 2, 2][: len(n)]


def test_a_run_that_ends_early_warns_and_lists_what_did_not_act(ar: dlens.Model) -> None:
    def end_all(value: Tensor, hook: Any) -> Tensor:
        value[..., ar.eos_token_id] += 1e9 * (hook.step == 2)
        return value

    trace = dlens.trace(ar).hook("hook_logits", end_all).skip([3], part="mlp", steps=[5]).capture("resid_post")
    with pytest.warns(dlens.UnfiredWarning, match="skip the mlp of layers 3 at steps 5"):
        record = trace.generate(PROMPTS, DECODED)
    assert record.n_steps == 3 and record.planned_steps == DECODED
    assert record.unfired == ("skip the mlp of layers 3 at steps 5",)
    assert record["resid_post"].shape[2] == record.tokens.shape[1] - 1


def test_an_early_end_trims_the_step_axis(diffusion: dlens.Model) -> None:
    record = (
        dlens.trace(diffusion)
        .capture("resid_post", layers=[1])
        .generate(PROMPTS[:2], 12, sampler=Threshold(threshold=0.3))
    )
    assert record.n_steps < record.planned_steps == 12
    assert record["resid_post"].shape[0] == record.n_steps == len(record.coords("resid_post")["step"])


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_an_operation_that_found_nothing_to_do(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).capture("logits").steer(torch.ones(192), layers=3, tokens="decoded")
    with untouched(model), pytest.raises(dlens.NeverFired) as caught:
        chain.forward(STORY)
    assert_three_parts(str(caught.value), "'add 1 x a vector [192] to resid_post of layers 3 on decoded tokens'")
    assert torch.equal(caught.value.record["logits"], trace(model).capture("logits").forward(STORY)["logits"])


def test_operations_of_a_changed_model_are_not_counted() -> None:
    model = dlens.load(build("qwen2"), verify=False)
    records = [dlens.trace(model).forward([[5, 6, 7]]) for _ in range(2)]
    counted = records[0].flops
    model.module.model.embed_tokens.weight.data.mul_(2)  # pyright: ignore
    assert records[1].flops == counted
    record = dlens.trace(model).forward([[5, 6, 7]])
    del model.module.model.layers[3]  # pyright: ignore
    with pytest.raises(ValueError) as caught:
        record.flops  # noqa: B018
    assert_three_parts(str(caught.value), "Qwen2ForCausalLM was changed after this run")
    assert records[0].flops == counted and record.counted() is None


def test_fewer_experts_after_a_run_are_not_counted_as_its_own() -> None:
    sizes: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4}
    module = MixtralForCausalLM(MixtralConfig(**SIZE | {"num_hidden_layers": 2}, **sizes)).eval()
    model = dlens.load(module, verify=False)
    record = dlens.trace(model).forward([[5, 6, 7]])
    for block in module.model.layers:
        block.mlp.gate.top_k = 1  # pyright: ignore
    with pytest.raises(ValueError) as caught:
        record.flops  # noqa: B018
    assert_three_parts(str(caught.value), "MixtralForCausalLM was changed after this run (its parts, their sizes or")
    assert dlens.trace(model).forward([[5, 6, 7]]).flops > 0

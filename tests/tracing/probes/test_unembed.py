"""Norm and head that measures read tokens with are the model's own, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, GPT2Config

import dlens
from dlens.errors import VerificationError
from dlens.tracing.probes.unembed import readout_of
from tests.standins import save_dream, save_llada
from tests.whole.architectures import GQA, build

IDS = torch.arange(1, 9)[None]


def check(model: dlens.Model) -> None:
    record = dlens.trace(model).capture("resid_post", "logits").forward(IDS)
    with torch.no_grad():
        logits = readout_of(model).unembed(record["resid_post"][-1, 0])
    assert logits.shape == (8, model.vocab_size)
    torch.testing.assert_close(logits, record["logits"][0])


def test_of_a_head_that_caps_its_logits() -> None:
    settings: dict[str, Any] = GQA | {"final_logit_softcapping": 2.0}
    check(dlens.load(build(Gemma2Config(**settings))))


def test_of_other_names_for_norm_and_head() -> None:
    check(dlens.load(build(GPT2Config(vocab_size=100, n_embd=32, n_layer=4, n_head=4, n_positions=64))))


@pytest.mark.parametrize("settings", [{}, {"weight_tying": True}])
def test_of_llada(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = dlens.load(save_llada(tmp_path, **settings), trust_remote_code=True)
    check(model)
    assert readout_of(model).mask_token_id == 99 and readout_of(model).shift == 0


def test_of_dream(tmp_path: Path) -> None:
    model = dlens.load(save_dream(tmp_path), trust_remote_code=True)
    check(model)
    assert readout_of(model).shift == 1


def test_what_an_autoregressive_model_predicts_is_not_there_yet(ar: dlens.Model) -> None:
    assert readout_of(ar).shift == 0 and readout_of(ar).mask_token_id is None


def test_a_head_that_does_more_is_refused_before_the_run() -> None:
    module = build(GPT2Config(vocab_size=100, n_embd=32, n_layer=4, n_head=4, n_positions=64))

    def halved(module: Any, args: Any, out: Any) -> Any:
        out.logits = out.logits / 2
        return out

    module.register_forward_hook(halved)
    trace = dlens.trace(module)
    with pytest.raises(VerificationError, match="differ from its own by .*; expected the same, .*; leave out"):
        trace.measure(dlens.LogitLens()).forward(IDS)
    trace.measure(dlens.Norms()).forward(IDS)

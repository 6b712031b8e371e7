"""Weights of quantised layers: found out, read whole, and no reason to call a model bidirectional."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dlens
from dlens.models.packed import is_packed, plain_tensors
from tests.models.conftest import build


@pytest.mark.filterwarnings("ignore:torch.ao:DeprecationWarning", "ignore:torch.quantize:UserWarning")
def test_a_dynamically_quantised_model_is_causal_and_counted() -> None:
    plain, ids = build("llama"), torch.arange(3, 15)[None]
    packed = torch.ao.quantization.quantize_dynamic(build("llama"), {nn.Linear}, dtype=torch.qint8)
    assert is_packed(packed.lm_head) and not is_packed(plain.lm_head) and not is_packed(plain)  # pyright: ignore
    found, expected = (dlens.trace(module).skip([1]).forward(ids) for module in (packed, plain))
    assert (found.flops, found.saved_flops) == (expected.flops, expected.saved_flops)
    other = build("llama")
    other.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1.0
    other = torch.ao.quantization.quantize_dynamic(other, {nn.Linear}, dtype=torch.qint8)
    names = {dlens.load(module, verify=False).fingerprint() for module in (packed, other, plain)}
    assert len(names) == 3


def test_tensors_within_other_things() -> None:
    class Held:
        def __init__(self) -> None:
            self.scale, self.words = torch.ones(2), "words"
            self.state = {"code": [torch.zeros(3)]}

    weight: Any = nn.Parameter(torch.ones(4))
    weight.quant_state = Held()
    assert [len(tensor) for tensor in plain_tensors(weight)] == [4, 2, 3]
    linear = nn.Linear(1, 1)
    assert list(plain_tensors("text")) == list(plain_tensors([linear], {id(linear)})) == []
    assert len(list(plain_tensors([linear]))) == 2

"""Blocks that others need are found out when a model loads, and are not skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlens
from tests.models.conftest import build


class Sharing(nn.Module):
    """A block that leaves something in a drawer, or takes it from there."""

    def __init__(self, block: nn.Module, drawer: dict[str, Tensor], puts: bool) -> None:
        super().__init__()
        self.own, self.drawer, self.puts = block, drawer, puts

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        if self.puts:
            self.drawer["shared"] = hidden_states.mean() * 0
        else:
            hidden_states = hidden_states + self.drawer["shared"]
        return self.own(hidden_states, **kwargs)


def test_a_block_that_another_one_needs() -> None:
    module, drawer = build("qwen2"), dict[str, Tensor]()
    for layer in (1, 2):
        module.model.layers[layer] = Sharing(module.model.layers[layer], drawer, puts=layer == 1)
    module.register_forward_pre_hook(lambda _m, _a: drawer.clear())
    trace = dlens.trace(module)
    assert list(trace.model.layout.needed) == [1]
    with pytest.raises(ValueError, match=r"layer 1 cannot be left out, as without it .* \(KeyError: 'shared'\)"):
        trace.skip([1])
    plain = build("qwen2")
    expected = dlens.trace(plain).skip([2]).capture("logits").forward(torch.arange(4)[None])["logits"]
    assert torch.equal(trace.skip([2]).capture("logits").forward(torch.arange(4)[None])["logits"], expected)


def test_nothing_is_needed_of_native_decoders() -> None:
    assert dict(dlens.load(build("gpt2")).layout.needed) == {}

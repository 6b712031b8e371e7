"""What one forward shows, and that it leaves no mark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dlens.models.layout.calls import undisturbed, watch
from tests.models.layout.toy import IDS, Toy, sequential


class InPlace(nn.Module):
    """A module that changes its input after it was given on."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Identity(), nn.Identity()

    def forward(self, input_ids: Tensor) -> Any:
        x = self.one(input_ids.float())
        x += 1
        return SimpleNamespace(logits=self.two(x))


def test_calls_are_in_order_and_know_what_lies_within_them() -> None:
    module = Toy(sequential, sequential)
    with undisturbed(module):
        forward = watch(module, {"input_ids": IDS})
    paths = [call.path for call in forward.calls]
    assert paths[:4] == ["", "e", "list.0", "list.0.n1"] and paths[-2:] == ["n", "h"]
    block = forward.calls[2]
    assert [call.path for call in forward.within(block)][:2] == ["list.0.n1", "list.0.m1"]
    assert block.length is None and forward.calls[3].outs[0].shape == (1, 6, 8)
    assert [call.length for call in forward.calls if call.path == "list.0.m1"] == [2]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_values_are_kept_as_they_were_then() -> None:
    forward = watch(InPlace(), {"input_ids": IDS})
    one, two = forward.calls[1:]
    assert torch.equal(one.outs[0], IDS.float()) and torch.equal(two.ins[0], IDS.float() + 1)


def test_training_flags_and_random_numbers_are_put_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    module[1].eval()
    state = torch.get_rng_state()
    with undisturbed(module):
        torch.rand(3)
        assert not module[0].training and not torch.is_grad_enabled()
    assert module[0].training and not module[1].training and torch.equal(torch.get_rng_state(), state)

"""Arguments that a forward does not take are left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlens.models.families.fitting import Fewer, Placed, fitting, placed, places, takes
from dlens.models.family import native_inputs
from tests.models.conftest import build

IDS = torch.tensor([[5, 6, 7]])


class Plain(nn.Module):
    """A forward of two arguments."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return input_ids


def test_a_forward_that_takes_less_gets_less() -> None:
    made = fitting(native_inputs, Plain())
    assert made == Fewer(native_inputs, ("use_cache", "position_ids"))
    assert list(made(IDS, torch.ones_like(IDS, dtype=torch.bool))) == ["input_ids", "attention_mask"]
    assert list(made(IDS, None)) == ["input_ids"]


def test_positions_can_be_counted_from_another_number() -> None:
    real = torch.tensor([[False, True, True]])
    fewer = Fewer(native_inputs, ("use_cache",))
    for make in (native_inputs, fewer):
        assert placed(make, 2) == Placed(make, 2)
        assert placed(make, 2)(IDS, real)["position_ids"].tolist() == [[3, 2, 3]]
        assert placed(make, 2)(IDS, None)["position_ids"].tolist() == [[2, 3, 4]]
    without = Fewer(native_inputs, ("position_ids",))
    assert placed(without, 2) is without and placed(len, 2) is len  # pyright: ignore
    assert places(native_inputs, IDS, real) == {}
    assert places(Placed(fewer, 2), IDS, real)["position_ids"].tolist() == [[3, 2, 3]]
    assert takes(Plain(), "attention_mask") and not takes(Plain(), "position_ids")


def test_native_decoders_and_inputs_of_ones_own_stay_as_they_are() -> None:
    def own(ids: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {"input_ids": ids}

    assert fitting(native_inputs, build("llama")) is native_inputs and fitting(own, Plain()) is own

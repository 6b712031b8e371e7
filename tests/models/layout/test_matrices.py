"""The weights of linear modules, whichever way they lie, and the reason for each that cannot be read."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlens.models.layout.matrices import is_linear, linear_weight, matrices_in, offloaded_weight, unreadable


class Packed(nn.Module):
    """A layer whose weight is codes."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 4, 4
        self.register_buffer("codes", torch.zeros(4, 4, dtype=torch.int8))


def test_weights_are_those_that_a_module_multiplies_with() -> None:
    for part in (nn.Linear(3, 5, bias=False), Conv1D(5, 3)):
        weight = linear_weight(part)
        assert weight is not None and is_linear(part) and unreadable(part) == ""
        assert torch.allclose(part(torch.eye(3)), weight.T, atol=1e-6)
        weight[2] = 0
        assert not part(torch.eye(3))[:, 2].any()
    assert linear_weight(nn.LayerNorm(3)) is None and not is_linear(nn.Embedding(2, 3)) and not is_linear(None)


def test_every_other_weight_has_its_reason() -> None:
    short = nn.Linear(4, 4)
    short.weight = nn.Parameter(short.weight.data.to(torch.float8_e5m2))
    block = nn.ModuleDict(
        {
            "plain": nn.Linear(4, 2),
            "packed": Packed(),
            "short": short,
            "away": nn.Linear(4, 2, device="meta"),
            "conv": nn.Conv1d(4, 2, 3),
            "norm": nn.LayerNorm(4),
        }
    )
    assert {held.path: held.why for held in matrices_in(block)} == {
        "plain": "",
        "packed": "quantised or packed in a Packed",
        "short": "quantised or packed in float8_e5m2",
        "away": "offloaded, or on the meta device",
        "conv.weight": "no linear module: (2, 4, 3) of Conv1d",
    }
    assert [held.path for held in matrices_in(nn.Embedding(3, 2))] == ["weight"]


def test_offloaded_weights_lie_as_their_module_reads_them() -> None:
    from accelerate import cpu_offload

    for part in (nn.Linear(3, 3), Conv1D(3, 3)):
        expected = linear_weight(part)
        assert expected is not None and offloaded_weight(part) is None
        kept = expected.clone()
        away = cpu_offload(nn.Sequential(part), execution_device=torch.device("cpu"))[0]
        found = offloaded_weight(away)
        assert unreadable(away) == "offloaded, or on the meta device"
        assert found is not None and torch.equal(found, kept)

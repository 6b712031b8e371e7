"""Floating-point operations of experts, packed weights and unknown operations, by arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

import dlens
from dlens.tracing.probes.counting import counting
from tests.models.conftest import SIZE, build

IDS = torch.arange(3, 19)[None]
D, MLP, KV, EXPERTS, CHOSEN = 32, 48, 16, 4, 2
# Of a position: query and output, key and value, scores and values over 16 keys.
ATTENTION = 2 * D * D + 2 * D * KV + 2 * 16 * D
HEAD = D * 100


def flops(module: Any) -> tuple[int, int]:
    record = dlens.trace(module).skip([1]).forward(IDS)
    return record.flops, record.saved_flops


@pytest.mark.parametrize("kernel", ["grouped_mm", "batched_mm", "eager"])
def test_experts_cost_what_reaches_them(kernel: str) -> None:
    torch.manual_seed(0)
    sizes = {"num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN}
    module = MixtralForCausalLM(MixtralConfig(**SIZE, **sizes)).eval()
    module.set_experts_implementation(kernel)
    block = 2 * 16 * (ATTENTION + D * EXPERTS + CHOSEN * 3 * D * MLP)
    assert flops(module) == (3 * block + 2 * 16 * HEAD, block)


class Packed(nn.Module):
    """A linear layer of whole numbers and a scale, with an operation of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("scale", linear.weight.detach().abs().amax() / 127)
        self.register_buffer("packed", (linear.weight.detach() / self.scale).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        return strange(x, self.packed) * self.scale  # pyright: ignore


@torch.library.custom_op("dlens_tests::strange", mutates_args=())
def strange(x: Tensor, packed: Tensor) -> Tensor:
    return x @ packed.to(x).T


def pack(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.Linear):
            setattr(parent, name, Packed(child))
        else:
            pack(child)


def test_packed_weights_cost_what_plain_ones_do() -> None:
    plain, packed = build("llama"), build("llama")
    pack(packed.model)
    block = 2 * 16 * (ATTENTION + 3 * D * MLP)
    assert flops(plain) == flops(packed) == (3 * block + 2 * 16 * HEAD, block)


def test_an_operation_without_a_formula_is_named() -> None:
    module = build("llama")
    record = dlens.trace(module).forward(IDS)
    assert record.flops > 0
    up = module.model.layers[2].mlp.up_proj
    packed = Packed(up).packed
    # A part that does not say how wide it is cannot be counted from outside.
    module.model.layers[2].mlp.up_proj = Strange(packed)
    record = dlens.trace(module).forward(IDS)
    with pytest.raises(NotImplementedError, match=r"dlens_tests.strange.default, whose .* expected .*; use another"):
        _ = record.flops


class Strange(nn.Module):
    def __init__(self, packed: Any) -> None:
        super().__init__()
        self.register_buffer("packed", packed)

    def forward(self, x: Tensor) -> Tensor:
        return strange(x, self.packed)  # pyright: ignore


def cost(run: Any) -> int:
    with counting(nn.Identity()) as counted:
        run()
    return counted.total("a test")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda a, b: a @ b, 2 * 6 * 8 * 4),
        (lambda a, b: a @ b[:, 0], 2 * 6 * 8),
        (lambda a, b: a[0] @ b[:, 0], 2 * 8),
        (lambda a, b: torch.addmv(a[:, 0], a, b[:, 0]), 2 * 6 * 8),
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), 2 * 6 * 8 * 4),
        (lambda a, b: nn.functional.linear(a, b.T, b[0]), 2 * 6 * 8 * 4),
        (lambda a, b: torch._int_mm(torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)), 8192),
        (lambda a, b: nn.functional.softmax(nn.functional.layer_norm(a, (8,)), -1).cumsum(0).sort(), 0),
        (
            lambda a, b: nn.functional.scaled_dot_product_attention(*a[None, None].expand(3, 1, 2, 6, 8)),
            2 * 2 * 2 * 36 * 8,
        ),
    ],
)
def test_products_by_arithmetic(run: Any, expected: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 8, generator=generator), torch.randn(8, 4, generator=generator)
    assert cost(lambda: run(a, b)) == expected


def test_groups_on_either_side() -> None:
    rows, matrices, ends = torch.ones(8, 16), torch.ones(2, 16, 32), torch.tensor([3, 8], dtype=torch.int32)
    assert cost(lambda: nn.functional.grouped_mm(rows, matrices, offs=ends)) == 2 * 8 * 16 * 32
    wide, columns = torch.ones(2, 4, 16), torch.ones(16, 8)
    assert cost(lambda: nn.functional.grouped_mm(wide, columns, offs=ends)) == 2 * 4 * 16 * 8

"""A decoder of a few lines, whose blocks do what a test asks, with names that say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dlens.models.layout.calls import Call, Forward, watch

WIDTH, HEADS = 8, 2
IDS = torch.tensor([[3, 1, 4, 15, 9, 2]])


class Mixer(nn.Module):
    """Causal attention; its projections are called in the order in which they are named."""

    def __init__(self, order: str = "qkv", fused: str | None = None) -> None:
        super().__init__()
        self.order, self.fused = order, fused
        self.parts = nn.ModuleDict({f"a{i}": nn.Linear(WIDTH, WIDTH) for i in range(3)})
        self.joined = nn.Linear(WIDTH, 3 * WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        if self.fused is None:
            made = {role: self.parts[f"a{i}"](x) for i, role in enumerate(self.order)}
            q, k, v = (made[role].unflatten(-1, (HEADS, -1)) for role in "qkv")
        else:
            shape = (3, HEADS, -1) if self.fused == "part first" else (HEADS, 3, -1)
            whole = self.joined(x).unflatten(-1, shape)
            q, k, v = whole.unbind(2 if self.fused == "part first" else 3)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(WIDTH // HEADS)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        z = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)
        return self.last(z.flatten(-2)), None


class Neurons(nn.Module):
    """Two matrices with an activation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.act(self.one(x)))


class Block(nn.Module):
    """A block whose parts a function puts together."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **attention: Any) -> None:
        super().__init__()
        self.run = run
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.m1, self.m2 = Mixer(**attention), Neurons()

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def sequential(block: Any, x: Tensor) -> Tensor:
    x = x + block.m1(block.n1(x))[0]
    return x + block.m2(block.n2(x))


def parallel(block: Any, x: Tensor) -> Tensor:
    return x + block.m1(block.n1(x))[0] + block.m2(block.n2(x))


def scaled(block: Any, x: Tensor) -> Tensor:
    x = x + block.m1(block.n1(x))[0] * 0.22
    return x + block.m2(block.n2(x)) * 0.22


def normed(block: Any, x: Tensor) -> tuple[Tensor]:
    x = block.n1(x + block.m1(x)[0])
    return (block.n2(x + block.m2(x)),)


def flat(block: Any, x: Tensor) -> Tensor:
    x = x + block.m1(block.n1(x))[0]
    return x + block.m2(block.n2(x).flatten(0, 1)).view(x.shape)


def alone(block: Any, x: Tensor) -> Tensor:
    return x + block.m1(block.n1(x))[0]


def other(block: Any, x: Tensor) -> Tensor:
    return block.n2(block.m1(x)[0]) * torch.tanh(x)


class Toy(nn.Module):
    """Embedding, blocks, norm and head."""

    def __init__(self, *runs: Callable[[Any, Tensor], Any], **attention: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.e = nn.Embedding(20, WIDTH)
        self.list = nn.ModuleList(Block(run, **attention) for run in runs)
        self.n, self.h = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 20)

    def forward(self, input_ids: Tensor) -> Any:
        x = self.e(input_ids)
        for block in self.list:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return SimpleNamespace(logits=self.h(self.n(x)))


@torch.no_grad()
def seen(run: Callable[[Any, Tensor], Any], **attention: Any) -> tuple[Forward, Call]:
    """A forward of two such blocks, and the call of the first."""
    forward = watch(Toy(run, run, **attention), {"input_ids": IDS})
    return forward, next(call for call in forward.calls if call.path == "list.0")

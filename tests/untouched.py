"""Prove that a run left a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import dlens

__all__ = ["untouched"]

IDS = torch.tensor([[5, 17, 2, 40, 11, 8]])


def _logits(module: Any) -> Tensor:
    with torch.no_grad():
        return module(input_ids=IDS, use_cache=False).logits


def _hooks(module: nn.Module) -> list[Any]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [(name, kind, len(vars(part)[kind])) for name, part in module.named_modules() for kind in kinds]


@contextmanager
def untouched(model: dlens.Model) -> Iterator[None]:
    """The body, failed or not, leaves weights, order of blocks, hooks, modes and every logit bit for bit."""
    module: Any = model.module
    before = (_logits(module), {name: tensor.clone() for name, tensor in module.state_dict().items()})
    blocks, hooks = [(name, id(block)) for name, block in model.blocks.named_children()], _hooks(module)
    modes = [(part.training, part._forward_hooks_with_kwargs.copy()) for part in module.modules()]
    grads = [p.requires_grad for p in module.parameters()], torch.is_grad_enabled()
    try:
        yield
    finally:
        assert torch.equal(_logits(module), before[0])
        after = module.state_dict()
        assert list(after) == list(before[1])
        assert all(torch.equal(tensor, before[1][name]) for name, tensor in after.items())
        assert [(name, id(block)) for name, block in model.blocks.named_children()] == blocks
        assert _hooks(module) == hooks
        assert [(part.training, part._forward_hooks_with_kwargs.copy()) for part in module.modules()] == modes
        assert ([p.requires_grad for p in module.parameters()], torch.is_grad_enabled()) == grads

"""Compression written out: the whole model runs anew for every group of matrices, with hooks of PyTorch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Change = Callable[[nn.Module, Tensor], Tensor]
"""From a module and all its inputs, a row each: its new weight as it stores it."""


@torch.no_grad()
def compressed_by_hand(
    module: nn.Module, blocks: str, groups: Sequence[Sequence[str]], ids: Tensor, change: Change
) -> None:
    """Change the matrices of each block, group after group, each on what it gets in the model as it is then."""
    for block in module.get_submodule(blocks).children():
        for group in groups:
            parts = [block.get_submodule(name) for name in group]
            seen = _inputs(module, parts, ids)
            for part in parts:
                part.weight.copy_(change(part, seen[part]))  # pyright: ignore


def _inputs(module: nn.Module, parts: Sequence[nn.Module], ids: Tensor) -> dict[nn.Module, Tensor]:
    seen: dict[nn.Module, Tensor] = {}
    handles = [part.register_forward_pre_hook(lambda part, args: seen.update({part: args[0]})) for part in parts]
    module(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen

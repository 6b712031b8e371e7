"""Whether a compression fits into memory, asked before it starts."""

from __future__ import annotations

import torch

from dlens.compression.matrices import matrices_of
from dlens.compression.recipe import Recipe
from dlens.models.model import Model

__all__ = ["refuse_too_large"]

# A Hessian, its damped copy, its inverse and the factor.
_HESSIANS = 4
_FLOAT = 4


def refuse_too_large(model: Model, recipe: Recipe, device: torch.device | None) -> None:
    """Refuse a copy of the model, or the work on its largest block, for which there is no room.

    Raises:
        MemoryError: says how much is needed where, and how much is free.
    """
    home = next(model.blocks.parameters()).device
    needed = {home: sum(value.numel() * value.element_size() for value in model.module.parameters())}
    place = device or home
    needed[place] = needed.get(place, 0) + _work(model, recipe)
    for where, count in needed.items():
        free = _free(where)
        if free is not None and count > free:
            raise MemoryError(
                f"compressing {model.name} needs {count / 2**30:.1f} GiB on {where}, where {free / 2**30:.1f} GiB are "
                f"free; expected room for a copy of the model and for one block; load the model on the CPU and pass "
                f"device='cuda', or free memory"
            )


def _work(model: Model, recipe: Recipe) -> int:
    block = max(sum(value.numel() * value.element_size() for value in part.parameters()) for part in model.blocks)
    weights = [matrix.weight for matrix in matrices_of(model)[0]]
    widest = max(weight.shape[1] for weight in weights) if recipe.how.needs == "hessian" else 0
    return block + _FLOAT * (3 * max(weight.numel() for weight in weights) + _HESSIANS * widest**2)


def _free(device: torch.device) -> int | None:
    if device.type == "cuda":
        return (
            torch.cuda.mem_get_info(device)[0]
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available
    return None

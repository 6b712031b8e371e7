"""The matrices of a block: the weights of its linear modules, however they lie, and why other weights are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from dlens.models.packed import is_packed

__all__ = ["Held", "is_linear", "linear_weight", "matrices_in", "offloaded_weight", "unreadable"]


@final
@dataclass(frozen=True, eq=False)
class Held:
    """A weight of two axes or more in a block.

    Args:
        path: of its linear module below the block; its own, where it is of no linear module.
        part: the module that holds it.
        why: it is no matrix that can be read and written in place; empty where it is one.
    """

    path: str
    part: nn.Module
    why: str


def matrices_in(block: nn.Module) -> Iterator[Held]:
    """The linear modules of a block, and its other weights of two axes or more.

    Examples:
        >>> block = nn.ModuleDict({"up": nn.Linear(3, 2), "bins": nn.Embedding(4, 3), "norm": nn.LayerNorm(3)})
        >>> [(held.path, held.why) for held in matrices_in(block)]
        [('up', ''), ('bins.weight', 'no linear module: (4, 3) of Embedding')]
    """
    for path, part in block.named_modules():
        if is_packed(part) or is_linear(part):
            yield Held(path, part, unreadable(part))
            continue
        for name, weight in part.named_parameters(recurse=False):
            if weight.ndim > 1:
                why = f"no linear module: {tuple(weight.shape)} of {type(part).__name__}"
                yield Held(f"{path}.{name}".lstrip("."), part, why)


def is_linear(part: nn.Module | None) -> bool:
    """Whether it multiplies with one matrix: a linear module, or GPT-2's."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(part, (nn.Linear, Conv1D))


def linear_weight(part: nn.Module) -> Float[Tensor, "d_out d_in"] | None:
    """The weights that a linear module or an embedding multiplies with, as a view; None for any other module.

    Examples:
        >>> linear_weight(nn.Linear(3, 2)).shape, linear_weight(nn.ReLU())
        (torch.Size([2, 3]), None)
    """
    if not is_linear(part) and not isinstance(part, nn.Embedding):
        return None
    assert isinstance(part.weight, Tensor)
    return _laid(part, part.weight.detach())


def offloaded_weight(part: nn.Module) -> Float[Tensor, "d_out d_in"] | None:
    """The weights of a linear module that accelerate moved to the processor or the disk; None of any other."""
    held = getattr(vars(part).get("_hf_hook"), "weights_map", None) or {}
    if not is_linear(part) or is_packed(part) or "weight" not in held:
        return None
    weight = held["weight"]
    return None if _is_short(weight) else _laid(part, weight)


def _laid(part: nn.Module, weight: Tensor) -> Float[Tensor, "d_out d_in"]:
    """GPT-2's modules hold them the other way round."""
    return weight if isinstance(part, (nn.Linear, nn.Embedding)) else weight.T


def _is_short(weight: Tensor) -> bool:
    """Whether its numbers are so short that they have scales elsewhere."""
    return weight.dtype.itemsize < 2


def unreadable(part: nn.Module) -> str:
    """Why the numbers of a linear module cannot be read and written in place; empty where they can.

    Examples:
        >>> unreadable(nn.Linear(3, 2)), unreadable(nn.Linear(3, 2, device="meta"))
        ('', 'offloaded, or on the meta device')
    """
    if is_packed(part):
        return f"quantised or packed in a {type(part).__name__}"
    weight = linear_weight(part)
    if weight is None or weight.is_meta:
        return "offloaded, or on the meta device"
    return f"quantised or packed in {str(weight.dtype).removeprefix('torch.')}" if _is_short(weight) else ""

"""Weights that are no plain matrix: which layers have them, and the plain tensors that they are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PLAIN", "is_packed", "plain_tensors"]

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Kinds of values that are data by themselves."""

_DEPTH = 6


def plain_tensors(value: Any, apart: Collection[int] = (), depth: int = 0) -> Iterator[Tensor]:
    """The plain tensors that something is made of: those within a quantised one, or on what hangs on it.

    Args:
        value: anything.
        apart: ids of objects that are left out.
    """
    if depth == _DEPTH or id(value) in apart or isinstance(value, (*PLAIN, type)):
        return
    inner: Iterable[Any]
    if isinstance(value, Tensor):
        inner = _made_of(value)
    elif isinstance(value, torch.ScriptObject):
        inner = value.__getstate__()  # pyright: ignore
    elif isinstance(value, Mapping):
        inner = value.values()
    else:
        inner = value if isinstance(value, (list, tuple)) else getattr(value, "__dict__", {}).values()
    for item in inner:
        if item is value or isinstance(value, Tensor) and type(item) is Tensor:
            yield item
        else:
            yield from plain_tensors(item, apart, depth + 1)


def _made_of(tensor: Tensor) -> Iterator[Any]:
    """A tensor, or what a quantised one holds: the parts of a subclass, or those that hang on a parameter."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        yield from (getattr(tensor, name) for name in flatten()[0])
        return
    yield tensor.dequantize() if tensor.is_quantized else tensor
    yield from vars(tensor).values()


def is_packed(part: nn.Module) -> bool:
    """A linear layer whose weight is no matrix of floating-point numbers: quantised, packed, or out of sight.

    One without a weight is packed where it holds other numbers, and else computes with what it says.
    """
    if getattr(part, "in_features", None) is None:
        return False
    # One that holds others, such as an adapter around its layer, leaves the work to them.
    if [inner for inner in part.modules() if getattr(inner, "in_features", None) is not None] != [part]:
        return False
    weight = getattr(part, "weight", None)
    if isinstance(weight, Tensor):
        return type(weight.data) is not Tensor or not weight.is_floating_point()
    held = [*part.parameters(), *part.buffers()]
    return not held or not all(tensor.is_floating_point() for tensor in held)

"""Weights that are no plain matrix: which layers have them, and the plain tensors that they are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PLAIN", "is_packed", "plain_tensors"]

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Kinds of values that are data by themselves."""

_DEPTH = 6


def is_packed(part: nn.Module) -> bool:
    """A linear layer whose weight is no matrix of floating-point numbers: quantised, packed, or out of sight."""
    linear = [inner for inner in part.modules() if getattr(inner, "in_features", None) is not None]
    # One that holds others, such as an adapter around its layer, leaves the work to them.
    if linear != [part]:
        return False
    weight = part._parameters.get("weight")
    return weight is None or type(weight.data) is not Tensor or not weight.is_floating_point()


def plain_tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """The plain tensors that something is made of: those within a quantised one, or on what hangs on it."""
    if depth == _DEPTH or isinstance(value, (nn.Module, *PLAIN)) or callable(value):
        return
    if isinstance(value, Tensor):
        yield from _made_of(value, depth)
    elif isinstance(value, torch.ScriptObject):
        yield from plain_tensors(value.__getstate__(), depth + 1)  # pyright: ignore
    elif isinstance(value, Mapping):
        yield from itertools.chain.from_iterable(plain_tensors(item, depth + 1) for item in value.values())
    elif isinstance(value, (list, tuple)):
        yield from itertools.chain.from_iterable(plain_tensors(item, depth + 1) for item in value)
    elif hasattr(value, "__dict__"):
        yield from itertools.chain.from_iterable(plain_tensors(item, depth + 1) for item in vars(value).values())


def _made_of(tensor: Tensor, depth: int) -> Iterator[Tensor]:
    """A tensor, or what a quantised one holds: the parts of a subclass, or those that hang on a parameter."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        yield from (getattr(tensor, name) for name in flatten()[0])
        return
    yield tensor.dequantize() if tensor.is_quantized else tensor
    yield from itertools.chain.from_iterable(plain_tensors(item, depth + 1) for item in vars(tensor).values())

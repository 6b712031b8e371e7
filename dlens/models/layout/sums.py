"""Comparing tensors of one forward: which are the same, and which add up to another."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["adds_up", "aligned", "scale_between", "same"]

# How often a sum may be rounded otherwise than the model rounds it.
_ROUNDINGS = 4
_NEAR = 0.01


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are one value, to the bit.

    Examples:
        >>> same(torch.ones(2), torch.ones(2)), same(torch.ones(2), torch.ones(1, 2)), same(None, torch.ones(2))
        (True, False, False)
    """
    if one is None or other is None:
        return False
    return one is other or (one.shape == other.shape and one.dtype == other.dtype and _equal(one, other))


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other if other.device == one.device else other.to(one.device))


def aligned(value: Tensor, stream: Tensor) -> Tensor | None:
    """A value with the axes of the stream, where it has as many rows, positions and channels, joined or not.

    Examples:
        >>> stream = torch.zeros(1, 3, 4)
        >>> aligned(torch.zeros(3, 4), stream).shape, aligned(torch.zeros(1, 4, 3), stream)
        (torch.Size([1, 3, 4]), None)
    """
    if not value.is_floating_point() or value.shape[-1:] != stream.shape[-1:] or value.numel() != stream.numel():
        return None
    whole = value if value.shape == stream.shape else value.reshape(stream.shape)
    return whole if whole.device == stream.device else whole.to(stream.device)


def adds_up(parts: tuple[Tensor, ...], stream: Tensor, exact: bool = False) -> bool:
    """Whether tensors add up to another, number by number: a large channel must not hide a wrong one.

    Args:
        parts, stream: of one shape.
        exact: to the bit, added in this order.
    """
    if exact:
        return same(sum(parts), stream)  # pyright: ignore
    total, size = sum(parts), sum(part.abs() for part in (*parts, stream))
    tolerance = _ROUNDINGS * torch.finfo(stream.dtype).eps
    return not bool(((total - stream).abs() > tolerance * size).any())  # pyright: ignore


def scale_between(
    before: Tensor, added: Tensor, after: Tensor, known: tuple[float, ...] = (), exact: bool = False
) -> float | None:
    """The factor with which `added` was added to get from `before` to `after`; None where there is none.

    Args:
        before, added, after: of one shape.
        known: numbers that a config or module holds; the nearest of these is taken where it fits.
        exact: where it fits to the bit.

    Examples:
        >>> before, added = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3)
        >>> scale_between(before, added, before + 0.22 * added, (0.22,)), scale_between(before, added, -before)
        (0.22, None)
    """
    wide, difference = added.double(), after.double() - before.double()
    square = float((wide * wide).sum())
    if not square:
        return None
    factor = float((wide * difference).sum()) / square
    # An estimate from numbers of few bits may be far off, but what fits to the bit is right.
    near = [number for number in known if exact or abs(number - factor) < _NEAR * abs(factor)]
    near.sort(key=lambda number: abs(number - factor))
    for number in (*near, factor):
        if number and adds_up((before, added * number), after, exact):
            return number
    return None

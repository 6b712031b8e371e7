"""Arguments that a module's forward takes: those of native decoders, without what some lack, or placed otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from dlens.axes import TokenIds, TokenMask
from dlens.models.family import native_inputs, position_ids
from dlens.models.wrapper import inner_forward

__all__ = ["Fewer", "Placed", "fitting", "places", "placed", "takes"]

Make = Callable[[TokenIds, TokenMask | None], dict[str, Any]]
_MADE = ("use_cache", "attention_mask", "position_ids")


@final
@dataclass(frozen=True)
class Fewer:
    """Arguments without some that a module does not take.

    Args:
        make: from token ids and a padding mask (None where nothing is padded), arguments by name.
        without: names that are left out.
    """

    make: Make
    without: tuple[str, ...]

    def __call__(self, ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
        """The arguments that it takes."""
        made = self.make(ids, attention_mask)
        return {name: value for name, value in made.items() if name not in self.without}


@final
@dataclass(frozen=True)
class Placed:
    """Arguments with the position of every token, counted from another number than 0, as RoBERTa does.

    Args:
        make: from token ids and a padding mask (None where nothing is padded), arguments by name.
        start: position of a row's first token.
    """

    make: Make
    start: int

    def __call__(self, ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
        """The arguments, positions among them."""
        real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask
        return self.make(ids, attention_mask) | {"position_ids": position_ids(real) + self.start}


def fitting(make: Make, module: nn.Module) -> Make:
    """What makes a module's arguments, fitted to its forward where it makes those of native decoders.

    Args:
        make: a family's.
        module: whose forward is asked for its parameters.
    """
    if make is not native_inputs:
        return make
    taken = _parameters(module)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return make
    without = tuple(name for name in _MADE if name not in taken)
    return Fewer(make, without) if without else make


def placed(make: Make, start: int) -> Make:
    """What makes the arguments of a native decoder, with positions counted from a number; anything else as it is."""
    takes_positions = make is native_inputs or (isinstance(make, Fewer) and "position_ids" not in make.without)
    return Placed(make, start) if takes_positions else make


def places(make: Make, ids: TokenIds, real: TokenMask) -> dict[str, Any]:
    """The positions of tokens by their argument's name, where a decoder does not count them from 0."""
    return {"position_ids": make(ids, real)["position_ids"]} if isinstance(make, Placed) else {}


def takes(module: nn.Module, name: str) -> bool:
    """Whether a module's forward names an argument."""
    return name in _parameters(module)


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(inner_forward(module)).parameters

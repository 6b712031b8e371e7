"""Arguments that a module's forward takes: those of native decoders, without what some lack."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from dlens.axes import TokenIds, TokenMask
from dlens.models.family import native_inputs
from dlens.models.wrapper import inner_forward

__all__ = ["Fewer", "fitting", "takes", "unplaced"]

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


def unplaced(make: Make) -> Make:
    """What makes the arguments of a native decoder, without positions; anything else as it is."""
    if make is native_inputs:
        return Fewer(make, ("position_ids",))
    if isinstance(make, Fewer) and "position_ids" not in make.without:
        return Fewer(make.make, (*make.without, "position_ids"))
    return make


def takes(module: nn.Module, name: str) -> bool:
    """Whether a module's forward names an argument."""
    return name in _parameters(module)


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(inner_forward(module)).parameters

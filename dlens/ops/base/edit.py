"""What operations share that write values at a hook point: where, on which tokens, and how they say so."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlens.axes import POINTS
from dlens.checks import require_word
from dlens.ops.base.op import Op, Touch, snake_case
from dlens.ops.base.scope import range_words
from dlens.ops.base.target import Target
from dlens.ops.base.tokens import TokenSpec, check_tokens, token_words

__all__ = ["Edit", "Place"]


@dataclass(frozen=True)
class Place:
    """Where and when an edit is being applied.

    Args:
        point: hook point.
        layer: its layer, None for embed and logits.
        step: the current step.
        noise_now: gives per row the share of masked positions, None for AR models; asked of the device when called.
        masked: [batch, position], which positions of this value are masks.
        rows, columns: which part of the whole batch the value covers.
        index: [batch, column], the columns of the whole batch, where a cached step computes none that are side by side
            in every row; `columns` are then those of the whole canvas.
        stop: the column of the whole batch before which the last key is.
        halves: 2 under classifier-free guidance (conditional rows first), else 1.

    Examples:
        >>> import dlens
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Look(dlens.Edit):
        ...     def edit(self, value, place):
        ...         print(place.point, place.layer, place.step, place.noise, place.rows, place.columns)
        ...         return value
        ...     def words(self):
        ...         return f"look at {self.where()}"
        >>> record = dlens.trace("trio/diffusion").apply(Look(layers=(3,))).generate("Once upon a time", 2)
        resid_post 3 0 (1.0,) (0,) slice(0, 6, None)
        resid_post 3 1 (0.5,) (0,) slice(0, 6, None)
    """

    point: str
    layer: int | None
    step: int
    noise_now: Callable[[], tuple[float, ...] | None] = field(repr=False)
    masked: Tensor
    rows: tuple[int, ...]
    columns: slice
    halves: int
    index: Tensor | None = None
    stop: int | None = None

    def part_of(self, value: Tensor, axes: tuple[str, ...], n_keys: int) -> Tensor:
        """The part at this place of what covers all columns of the rows.

        Args:
            value: axes as of the hook point, over all columns.
            axes: their names.
            n_keys: how many keys the place has.
        """
        if "position_b" in axes:
            stop = self.columns.stop if self.stop is None else self.stop
            value = value[..., stop - n_keys : stop]
        moved = value.movedim(axes.index("position"), 1)
        if self.index is None:
            moved = moved[:, self.columns]
        else:
            moved = moved[torch.arange(len(moved))[:, None], self.index.to(moved.device)]
        return moved.movedim(1, axes.index("position"))

    @property
    def noise(self) -> tuple[float, ...] | None:
        """Per row the share of masked positions; None for AR models."""
        return self.noise_now()


@dataclass(frozen=True, kw_only=True)
class Edit(Op):
    """An operation that writes to the residual stream or to another hook point; extend it with `edit` and `words`.

    Its settings reach `record.plan` through `details`. `where()` ends with tokens and scope, so words end with it.

    Args:
        at: the hook point.
        layers: places; None is every layer.
        tokens: which positions: "all", "prompt", "masked", "decoded", "last", a slice or list
            counted from each row's first real token, or a bool tensor [batch, position].
        heads: which heads, at a point that has any; None is all of them.
        scope: the steps and noise levels at which it acts.

    Examples:
        >>> import dlens
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Halve(dlens.Edit):
        ...     def edit(self, value, place):
        ...         return value / 2
        ...     def words(self):
        ...         return f"halve {self.where()}"
        >>> print(dlens.trace("trio/ar").apply(Halve(at="mlp_out", layers=(3,))))
        trace of trio/ar (16 layers, autoregressive)
          halve mlp_out of layers 3
    """

    at: str = "resid_post"
    layers: tuple[int, ...] | None = None
    tokens: TokenSpec = "all"
    heads: tuple[int, ...] | None = None

    def check(self, target: Target) -> None:
        require_word("at", self.at, POINTS, f"a hook point: {', '.join(POINTS)}")
        super().check(target)
        if POINTS[self.at].in_block:
            target.require_point(self.at)
            target.layers(self.layers)
        check_tokens(self.tokens, target)
        if self.heads is not None:
            self._check_heads(target.heads(self.at))

    def _check_heads(self, count: int) -> None:
        for head in self.heads or ():
            if not 0 <= head < count:
                raise IndexError(
                    f"head {head} at {self.at}; expected 0 to {count - 1}, as it has {count} "
                    f"{POINTS[self.at].head_axis}s; give a smaller number"
                )

    @abstractmethod
    def edit(self, value: Tensor, place: Place) -> Tensor:
        """The new value at a place; the engine keeps the old one where the scope does not reach."""

    def touches(self, target: Target) -> tuple[Touch, ...]:
        layers = target.layers(self.layers) if POINTS[self.at].in_block else ()
        return (Touch(self.at, layers, "write"),)

    def selection(self) -> TokenSpec:
        return self.tokens

    def where(self) -> str:
        """The point, its heads, the layers, the tokens and the scope, in words."""
        layers = "all layers" if self.layers is None else f"layers {range_words(self.layers)}"
        tokens = "" if isinstance(self.tokens, str) and self.tokens == "all" else f" on {token_words(self.tokens)}"
        place = f"{self.at} of {layers}" if POINTS[self.at].in_block else self.at
        if self.heads is not None:
            place = f"heads {', '.join(map(str, self.heads))} of {place}"
        return f"{place}{tokens}{self.scope.words()}"

    def to_json(self) -> dict[str, Any]:
        layers = None if self.layers is None else list(self.layers)
        place: dict[str, Any] = {"at": self.at} | ({"layers": layers} if POINTS[self.at].in_block else {})
        place["tokens"] = token_words(self.tokens)
        if self.heads is not None:
            place["heads"] = list(self.heads)
        return {"op": snake_case(type(self).__name__)} | self.details() | place | self.scope.to_json()

"""What an operation is: plain picklable data that says what to do to a forward, where and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsIndex, cast, get_args

import numpy as np
import torch
from torch import Tensor

from dlens.axes import BLOCK_POINTS, ROOT_POINTS, respell
from dlens.ops.given import Indices, as_index, as_indices, as_ints, as_number, as_slice

__all__ = [
    "INNER_POINTS",
    "STREAM_POINTS",
    "Edit",
    "Op",
    "Place",
    "Scope",
    "StepSpec",
    "Target",
    "Third",
    "TokenSpec",
    "as_tokens",
]

Third = Literal["early", "middle", "late"]
StepSpec = SupportsIndex | range | slice | Iterable[SupportsIndex] | Third | None
TokenSpec = str | slice | Iterable[SupportsIndex] | Tensor
TOKEN_WORDS = ("all", "prompt", "masked", "decoded", "last")
STREAM_POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
INNER_POINTS = ("pattern", "attn_out", "resid_mid", "mlp_out")


@dataclass(frozen=True)
class Target:
    """The facts of a model that an operation is checked against.

    Args:
        name: how messages call the model.
        n_layers, d_model: its size.
        has_noise: whether the noise level is defined (diffusion).
        absent: hook point -> why this model does not have it.
        attention_types: per layer the kind of attention ("full", "sliding", ...).
    """

    name: str
    n_layers: int
    d_model: int
    has_noise: bool
    absent: Mapping[str, str] = field(default_factory=dict)
    attention_types: tuple[str, ...] = ()

    def layer(self, layer: SupportsIndex) -> int:
        """The place a layer number names; negative numbers count from the end.

        Raises:
            IndexError: no such layer.
            ValueError: not a whole number.
        """
        layer = as_index(layer, "layer")
        if not -self.n_layers <= layer < self.n_layers:
            raise IndexError(
                f"layer {layer} of {self.name}; expected {-self.n_layers} to {self.n_layers - 1}, "
                f"as it has {self.n_layers} layers counted from 0; give a smaller number"
            )
        return layer % self.n_layers

    def layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """The places that layer numbers name, in order; None names all."""
        if layers is None:
            return tuple(range(self.n_layers))
        return tuple(sorted({self.layer(layer) for layer in layers}))

    def places(self, layers: Indices) -> tuple[int, ...] | None:
        """The places that a user names, each once, in the order named; None stays None.

        Raises:
            ValueError, IndexError: no layer at all, no such layer, or not a whole number.
        """
        named = as_indices(layers, "layer", self.n_layers)
        return None if named is None else tuple(dict.fromkeys(self.layer(layer) for layer in named))

    def require_point(self, point: str) -> None:
        """Refuse a point that this architecture does not have.

        Raises:
            ValueError: says why it is absent.
        """
        if point in self.absent:
            raise ValueError(
                f"{self.name} has no {point}: {self.absent[point]}; expected one of "
                f"{', '.join(p for p in BLOCK_POINTS if p not in self.absent)}; use one of these"
            )


@dataclass(frozen=True)
class Scope:
    """When an operation acts.

    Args:
        steps: an int, range, slice, list of ints or a third ("early", "middle", "late") of the
            planned steps; None is every step. Negative steps count from the end of the plan.
        noise: (lo, hi): rows whose share of masked positions is in lo < noise <= hi, 0 included
            when lo is 0; None is every level.

    Examples:
        >>> sorted(Scope(steps="late").resolve(6))
        [4, 5]
    """

    steps: StepSpec = None
    noise: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _as_steps(self.steps))
        object.__setattr__(self, "noise", _as_noise(self.noise))

    def resolve(self, n_steps: int) -> frozenset[int]:
        """The steps of a planned run that it names.

        Raises:
            IndexError: a step beyond the planned run.
        """
        steps = self.steps
        if steps is None:
            return frozenset(range(n_steps))
        if isinstance(steps, str):
            third = get_args(Third).index(steps)
            return frozenset(range(third * n_steps // 3, (third + 1) * n_steps // 3))
        if isinstance(steps, slice):
            for end, last in ((steps.start, n_steps - 1), (steps.stop, n_steps)):
                if end is not None and not -n_steps <= end <= last:
                    raise _beyond(steps, end, n_steps)
            return frozenset(range(n_steps)[steps])
        named = cast(Sequence[int], steps)
        for step in named:
            if not -n_steps <= step < n_steps:
                raise _beyond(steps, step, n_steps)
        return frozenset(step % n_steps for step in named)

    def in_noise(self, noise: float) -> bool:
        """Whether a row's noise level is inside."""
        if self.noise is None:
            return True
        lo, hi = self.noise
        return lo < noise <= hi or (lo == 0 and noise == 0)

    def words(self) -> str:
        """The scope in words, with a leading space; empty when it is everything."""
        parts = []
        if self.steps is not None:
            parts.append(f" at steps {_step_words(self.steps)}")
        if self.noise is not None:
            parts.append(f" at noise {self.noise[0]:g} to {self.noise[1]:g}")
        return "".join(parts)


def _as_steps(steps: Any) -> StepSpec:
    """Steps as a user writes them: a word, a slice, a range or a tuple of ints; None stays None."""
    if steps is None:
        return None
    if isinstance(steps, slice):
        return as_slice(steps, "step")
    if isinstance(steps, str) and steps not in get_args(Third):
        raise ValueError(
            f"steps={steps!r}; expected an int, range, slice, list of ints, "
            f"'early', 'middle' or 'late'; {respell(steps, get_args(Third))}"
        )
    if isinstance(steps, str):
        return cast(Third, steps)
    named = steps if isinstance(steps, range) else as_ints(steps, "step")
    if not named:
        raise ValueError(
            f"steps={steps!r} is empty; expected at least one step; name some, such as range(4), which is 0 to 3"
        )
    return named


def _as_noise(noise: Any) -> tuple[float, float] | None:
    if noise is None:
        return None
    ends = [as_number(end, "noise") for end in noise] if isinstance(noise, Sequence) else []
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(
            f"noise={noise!r}; expected (lo, hi) with 0 <= lo < hi <= 1; "
            f"noise is the share of masked positions, for example noise=(0.5, 1.0)"
        )
    return ends[0], ends[1]


def _step_words(steps: Any) -> str:
    if isinstance(steps, str):
        return steps
    rising = isinstance(steps, range) and min(steps.start, steps.stop) >= 0 and steps.step > 0
    if isinstance(steps, slice) or rising:
        start, stop = ("" if end is None else end for end in (steps.start, steps.stop))
        return f"{start}:{stop}" + (f":{steps.step}" if steps.step not in (None, 1) else "")
    return ", ".join(map(str, steps))


def _steps_json(steps: Any) -> Any:
    """Steps as data: a list of ints, the ends of a slice, or a word."""
    if isinstance(steps, slice):
        return {"start": steps.start, "stop": steps.stop, "step": steps.step}
    return steps if isinstance(steps, str) else list(steps)


def _beyond(steps: StepSpec, step: int, n_steps: int) -> IndexError:
    if n_steps == 1:
        return IndexError(
            f"steps={_step_words(steps)} names step {step}; expected step 0 alone, as a forward has one step, "
            f"and so has this run; leave steps= out, or generate more tokens"
        )
    return IndexError(
        f"steps={_step_words(steps)} names step {step}; expected steps 0 to {n_steps - 1}, as the run is planned "
        f"for {n_steps}; give fewer steps, or plan a longer run"
    )


@dataclass(frozen=True)
class Place:
    """Where and when an edit is being applied.

    Args:
        point: hook point.
        layer: its layer, None for embed and logits.
        step: the current step.
        noise: per row the share of masked positions; None for AR models.
        masked: [batch, position], which positions of this value are masks.
        rows, columns: which part of the whole batch the value covers.
        halves: 2 under classifier-free guidance (conditional rows first), else 1.
    """

    point: str
    layer: int | None
    step: int
    noise: tuple[float, ...] | None
    masked: Tensor
    rows: tuple[int, ...]
    columns: slice
    halves: int


@dataclass(frozen=True, kw_only=True)
class Op(ABC):
    """An operation on a forward, as data."""

    scope: Scope = Scope()

    def check(self, target: Target) -> None:
        """Refuse what this model cannot do, before anything is computed.

        Raises:
            ValueError, IndexError: with what came, what was expected and the usual fix.
        """
        if self.scope.noise is not None and not target.has_noise:
            raise ValueError(
                f"noise={self.scope.noise!r} on {target.name}; expected a diffusion model, as the noise "
                f"level of an autoregressive model is undefined; use steps= instead"
            )

    @abstractmethod
    def words(self) -> str:
        """The operation in words, for `print(trace)` and for error messages."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What is written of it into `record.plan`."""

    def _scope_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        if self.scope.steps is not None:
            entry["steps"] = _steps_json(self.scope.steps)
        if self.scope.noise is not None:
            entry["noise"] = list(self.scope.noise)
        return entry


@dataclass(frozen=True, kw_only=True)
class Edit(Op):
    """An operation that writes to the residual stream or to another hook point.

    Args:
        at: the hook point.
        layers: places; None is every layer.
        tokens: which positions: "all", "prompt", "masked", "decoded", "last", a slice or list
            counted from each row's first real token, or a bool tensor [batch, position].
    """

    at: str = "resid_post"
    layers: tuple[int, ...] | None = None
    tokens: TokenSpec = "all"

    def check(self, target: Target) -> None:
        if self.at not in (*BLOCK_POINTS, *ROOT_POINTS):
            known = (*BLOCK_POINTS, *ROOT_POINTS)
            raise ValueError(f"at={self.at!r}; expected a hook point: {', '.join(known)}; {respell(self.at, known)}")
        super().check(target)
        if self.at in BLOCK_POINTS:
            target.require_point(self.at)
            target.layers(self.layers)
        check_tokens(self.tokens, target)

    @abstractmethod
    def edit(self, value: Tensor, place: Place) -> Tensor:
        """The new value at a place; the engine keeps the old one where the scope does not reach."""

    def _where(self) -> str:
        layers = "all layers" if self.layers is None else f"layers {', '.join(map(str, self.layers))}"
        tokens = "" if isinstance(self.tokens, str) and self.tokens == "all" else f" on {_token_words(self.tokens)}"
        place = self.at if self.at not in BLOCK_POINTS else f"{self.at} of {layers}"
        return f"{place}{tokens}{self.scope.words()}"

    def _edit_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"at": self.at}
        if self.at in BLOCK_POINTS:
            entry["layers"] = None if self.layers is None else list(self.layers)
        entry["tokens"] = _token_words(self.tokens)
        return entry | self._scope_json()


def _token_words(tokens: TokenSpec) -> str:
    if isinstance(tokens, str):
        return f"{tokens} tokens" if tokens != "last" else "the last token"
    if isinstance(tokens, Tensor):
        return f"{int(tokens.sum())} chosen positions"
    return f"positions {_step_words(tokens)}"


def as_tokens(tokens: Any) -> TokenSpec:
    """A token selection as a user writes it: a word, a slice, a tuple of ints, or a bool tensor of its own.

    Raises:
        ValueError: anything else, or no position at all.
    """
    forms = f"one of {', '.join(TOKEN_WORDS)}, a slice or list of positions, or a bool tensor [batch, position]"
    if isinstance(tokens, str):
        if tokens not in TOKEN_WORDS:
            raise ValueError(f"tokens={tokens!r}; expected {forms}; {respell(tokens, TOKEN_WORDS)}")
        return tokens
    if isinstance(tokens, slice):
        return as_slice(tokens, "position")
    if isinstance(tokens, np.ndarray):
        tokens = torch.as_tensor(tokens)
    if isinstance(tokens, Tensor) and (tokens.ndim != 1 or tokens.dtype == torch.bool):
        if tokens.dtype != torch.bool or tokens.ndim != 2:
            raise ValueError(
                f"tokens is a {tokens.dtype} tensor of shape {tuple(tokens.shape)}; expected bool "
                f"[batch, position] over the whole run; make it with torch.zeros(batch, position, dtype=torch.bool)"
            )
        return tokens.detach().clone()
    if not isinstance(tokens, Iterable):
        raise ValueError(f"tokens={tokens!r}; expected {forms}; write one position as a list")
    positions = as_ints(tokens, "position")
    if not positions:
        raise ValueError(f"tokens={tokens!r} names no position; expected {forms}; name at least one position")
    return positions


def check_tokens(tokens: TokenSpec, target: Target) -> None:
    """Refuse a token selection that means nothing for this model."""
    if isinstance(as_tokens(tokens), str) and tokens == "masked" and not target.has_noise:
        raise ValueError(
            f"tokens='masked' on {target.name}; expected a diffusion model, as an autoregressive model "
            f"has no masked positions; use 'prompt', 'decoded' or 'last'"
        )

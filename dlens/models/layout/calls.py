"""What one small forward shows: every call of every module, with the tensors that went in and came out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.models.family import hidden_in

__all__ = ["Call", "Forward", "undisturbed", "watch"]


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module.

    Args:
        path: of the module, below the root.
        part: the module.
        start, end: when it began and ended, in ticks of the forward.
        args, kwargs: what it was called with.
        ins: the tensors among these as they were then, by position or name.
        outs: the tensors that it returned, by their place in a tuple; 0 for a bare one.
        length: of the tuple that it returned; None for a bare tensor.
    """

    path: str
    part: nn.Module
    start: int
    end: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    ins: Mapping[int | str, Tensor]
    outs: Mapping[int, Tensor]
    length: int | None

    @property
    def depth(self) -> int:
        """How many modules it lies within."""
        return self.path.count(".")

    @property
    def first(self) -> Tensor | None:
        """Its first argument, where that is a tensor."""
        return self.ins.get(0 if self.args else next(iter(self.kwargs), 0))

    def holds(self, other: Call) -> bool:
        """Whether another call was made within this one."""
        return self.start < other.start and other.end < self.end

    def entered(self) -> Tensor | None:
        """The stream among its arguments, as blocks take it."""
        named = {key: value for key, value in self.ins.items() if isinstance(key, str)}
        try:
            return hidden_in(tuple(self.ins.get(i) for i in range(len(self.args))), named)
        except KeyError:
            return None


@final
@dataclass(frozen=True, eq=False)
class Forward:
    """The calls of one forward in the order in which they began, and its logits."""

    ids: Tensor
    calls: tuple[Call, ...]
    logits: Tensor

    @cached_property
    def _starts(self) -> list[int]:
        return [call.start for call in self.calls]

    @cached_property
    def _within(self) -> dict[Call, tuple[Call, ...]]:
        return {}

    def within(self, call: Call) -> tuple[Call, ...]:
        """The calls made within a call, of modules below it that ran once there."""
        if call not in self._within:
            here = self.calls[bisect_right(self._starts, call.start) : bisect_left(self._starts, call.end)]
            found = [c for c in here if c.path.startswith(f"{call.path}.")]
            runs = Counter(c.part for c in found)
            self._within[call] = tuple(c for c in found if runs[c.part] == 1)
        return self._within[call]


@final
class _Copies:
    """Copies of tensors as they were at some time; one that was not changed since is copied once."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def __call__(self, values: Mapping[Any, Any]) -> dict[Any, Tensor]:
        return {key: self._copy(value) for key, value in values.items() if isinstance(value, Tensor)}

    def _copy(self, value: Tensor) -> Tensor:
        key = id(value), value._version
        if key not in self._held:
            # The tensor itself is held too, so that its id stays its own.
            self._held[key] = value, value.detach().clone()
        return self._held[key][1]


def watch(module: nn.Module, inputs: dict[str, Any]) -> Forward:
    """Run one forward and keep what every module was given and gave.

    Args:
        module: of the transformers library, in whatever state; it is left as it was.
        inputs: its arguments, `input_ids` of one row among them.
    """
    calls: list[Call] = []
    handles = _hooks(module, calls)
    try:
        logits = module(**inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    return Forward(inputs["input_ids"], tuple(sorted(calls, key=lambda call: call.start)), logits)


def _hooks(module: nn.Module, calls: list[Call]) -> list[Any]:
    """Hooks on every module that add each call to a list when it ends."""
    paths = {part: path for path, part in module.named_modules()}
    copies, begun, ticks = _Copies(), [], iter(range(10**9))

    def before(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        begun.append((part, next(ticks), args, kwargs, copies({**dict(enumerate(args)), **kwargs})))

    def after(part: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        while begun[-1][0] is not part:  # a call that ended in an error which its caller caught
            begun.pop()
        _, start, args, kwargs, ins = begun.pop()
        # A tuple with names is read by these, and nothing else can stand for it.
        plain = type(output) is tuple
        whole, length = (output, len(output)) if plain else ((output,), None)
        outs = copies(dict(enumerate(whole)))
        calls.append(Call(paths[part], part, start, next(ticks), args, kwargs, ins, outs, length))

    handles: list[Any] = []
    for part in paths:
        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(after, with_kwargs=True))
    return handles


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Run without gradients and dropout; training flags and random numbers are put back afterwards."""
    training = [part for part in module.modules() if part.training]
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices)):
            module.eval()
            yield
    finally:
        for part in training:
            part.training = True

"""Record what a step asks of torch, and play it again: what a GPU's graph does, for machines without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlens.tracing.replay.recorder import Recorder, Recording, not_packed

__all__ = ["TapeRecorder"]

_WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero"}


class TapeRecorder(Recorder):
    """Calls in their order, with the very tensors: what the processor decided meanwhile is decided for good."""

    def __init__(self, packed: bool) -> None:
        self.packed = packed
        self.recorded = self.cuts = 0

    def record(self, compute: Callable[[], Tensor], at_once: bool) -> Recording:
        tape = _Tape()
        # On a GPU transformers sees by itself that it cannot look at numbers.
        blind = mock.patch("transformers.masking_utils.is_tracing", lambda tensor=None: True)
        with blind if self.packed else not_packed(False), tape:
            found = compute()
        if not at_once:
            tape.undo()
        self.recorded += 1
        return Recording(found, tape.play)

    def cut(self) -> None:
        self.cuts += 1


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _WAITS:
            raise RuntimeError(f"{func} waits for the device")
        given = [*args, *kwargs.values()]
        names = [*range(len(args)), *kwargs]
        for argument in func._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            for name, value in zip(names, given, strict=True):
                at = func._schema.arguments[name].name if isinstance(name, int) else name
                if written and at == argument.name and isinstance(value, Tensor):
                    self.before.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        """Leave everything as it was: recording computes nothing."""
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    def play(self) -> None:
        for func, args, kwargs, out in self.calls:
            new = func(*args, **kwargs)
            if any(returned.alias_info for returned in func._schema.returns):
                continue
            for old, value in zip(tree_leaves(out), tree_leaves(new), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(value)

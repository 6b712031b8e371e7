"""Record what a step asks of a GPU, so that it can be played again without the processor."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Constants", "CudaRecorder", "Recorder", "Recording", "not_packed", "recorder_for"]


@dataclass(frozen=True)
class Recording:
    """A recorded step.

    Args:
        found: what it computes, where it will stand after each play.
        play: compute it again from what stands where it stood.
    """

    found: Tensor
    play: Callable[[], None]


class Recorder(ABC):
    """Makes recordings."""

    @abstractmethod
    def record(self, compute: Callable[[], Tensor], at_once: bool) -> Recording:
        """Record what a function computes.

        Args:
            compute: the function; it may call `cut`.
            at_once: whether it is computed too, each part as soon as it was recorded.

        Raises:
            RuntimeError: it asks something of the device that has to be waited for; parts may have been computed.
        """

    @abstractmethod
    def cut(self) -> None:
        """A part of what is being recorded is over; the device may compute it while the next one is recorded."""


@final
class _Ground:
    """Where the steps of a model are recorded: a stream, and memory that recordings use one after the other.

    Memory of its own would stay reserved when a recording is gone, until the device is full.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        # As long as one recording stands the memory of the others is kept for the next.
        self._first = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.stream(self.stream):
            torch.zeros(1, device=device)
            self._first.capture_begin(capture_error_mode="thread_local")
            torch.zeros(1, device=device)
            self._first.capture_end()
        self.pool = self._first.pool()


@final
class CudaRecorder(Recorder):
    """Records CUDA graphs, one for each part of a step.

    Args:
        device: of the model.
        packed: whether transformers may look for packed sequences, which it cannot while a step is recorded.
        kept: what is kept of a model between runs, by device: where its steps are recorded.
    """

    def __init__(self, device: torch.device, packed: bool, kept: dict[torch.device, Any]) -> None:
        self._device, self._packed, self._kept = device, packed, kept
        self._parts: list[Any] = []
        self._open: Any = None
        self._at_once = False

    def record(self, compute: Callable[[], Tensor], at_once: bool) -> Recording:
        """See `Recorder.record`."""
        ground = self._kept[self._device] = self._kept.get(self._device) or _Ground(self._device)
        now = torch.cuda.current_stream(self._device)
        self._parts, self._at_once = [], at_once
        ground.stream.wait_stream(now)
        try:
            with _no_collection(), not_packed(self._packed), torch.cuda.stream(ground.stream):
                found = self._recorded(compute)
        except BaseException:
            # torch may keep the memory for a recording that could not be ended.
            self._kept.pop(self._device, None)
            raise
        finally:
            # Parts that were computed at once are at work there.
            now.wait_stream(ground.stream)
            parts, self._parts = tuple(self._parts), []
        return Recording(found, partial(_play, parts))

    def _recorded(self, compute: Callable[[], Tensor]) -> Tensor:
        self._begin()
        try:
            found = compute()
            self._end()
        except BaseException:
            graph, self._open = self._open, None
            if graph is not None:
                graph.capture_end()
            raise
        return found

    def cut(self) -> None:
        """See `Recorder.cut`; a step that is not computed at once stays whole, as it is played in one go."""
        if self._at_once:
            self._end()
            self._begin()

    def _begin(self) -> None:
        graph = torch.cuda.CUDAGraph()
        # Other threads may ask the device meanwhile.
        graph.capture_begin(pool=self._kept[self._device].pool, capture_error_mode="thread_local")
        self._open = graph

    def _end(self) -> None:
        # Ended once, also where that fails.
        graph, self._open = self._open, None
        graph.capture_end()
        self._parts.append(graph)
        if self._at_once:
            graph.replay()


def _play(parts: Sequence[Any]) -> None:
    for graph in parts:
        graph.replay()


def recorder_for(device: torch.device, packed: bool, kept: dict[torch.device, Any]) -> Recorder | None:
    """What records steps on a device; None where nothing does.

    Args:
        device, packed, kept: see `CudaRecorder`.

    Examples:
        >>> recorder_for(torch.device("cpu"), packed=False, kept={}) is None
        True
    """
    return CudaRecorder(device, packed, kept) if device.type == "cuda" else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Free nothing meanwhile: what is freed may wait for the device."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextmanager
def not_packed(packed: bool) -> Iterator[None]:
    """Let transformers make the masks that it makes elsewhere, for rows that are neither packed nor padded.

    It cannot look at its numbers while a step is recorded; then it makes an explicit mask, and attention leaves its
    fastest kernel.
    """
    if packed:
        yield
        return
    from transformers import masking_utils

    alone = mock.patch.object(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)
    with alone, mock.patch.object(masking_utils, "is_tracing", lambda tensor=None: False):
        yield


@final
class Constants(TorchDispatchMode):
    """What edits copy from the processor's memory, such as indices: kept on the device for a recording.

    Entered around the edits of a step it notes the copies; within `given` it makes a recorded step take them from
    there. Around a whole step it would double the time that launching takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[Tensor, Tensor]] = []
        self._given = False

    @contextmanager
    def given(self) -> Iterator[None]:
        """Whenever it is entered meanwhile, take what was noted."""
        self._given = True
        try:
            yield
        finally:
            self._given = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        copied = _copied(func, args, kwargs)
        if copied is None:
            return func(*args, **kwargs)
        if not self._given:
            found = func(*args, **kwargs)
            self._found.append((copied.clone(), found.clone()))
            return found
        into = args[0].dtype if func is torch.ops.aten.copy_.default else kwargs.get("dtype") or copied.dtype
        there = self._noted(copied, into)
        return args[0].copy_(there) if func is torch.ops.aten.copy_.default else there.clone()

    def _noted(self, copied: Tensor, dtype: torch.dtype) -> Tensor:
        """The same numbers on the device; in any order, as what is copied once a run is not copied again."""
        for known, there in self._found:
            if there.dtype == dtype and _same(known, copied):
                return there
        raise RuntimeError("a step copies something else from the processor's memory than the one before")


def _copied(func: Any, args: Any, kwargs: Any) -> Tensor | None:
    """The tensor of the processor that a call brings to a device; None where it brings none."""
    if func is torch.ops.aten._to_copy.default:
        target = kwargs.get("device")
        there = target is not None and torch.device(target).type != "cpu"
        return args[0] if there and args[0].device.type == "cpu" else None
    if func is torch.ops.aten.copy_.default and args[0].device.type != "cpu" and args[1].device.type == "cpu":
        return args[1]
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())

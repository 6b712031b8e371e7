"""Bring tensors to a device and back, while the processor goes on."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

__all__ = ["Fetched", "sent"]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device, without waiting for what that one computes.

    Examples:
        >>> sent(torch.arange(2), torch.device("meta")).device.type
        'meta'
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@final
class Fetched:
    """A tensor on its way to the processor: what is asked of its device afterwards does not hold it up.

    Args:
        tensor: nothing writes to it.

    Examples:
        >>> Fetched(torch.arange(2)).wait()
        tensor([0, 1])
    """

    def __init__(self, tensor: Tensor) -> None:
        self._here = tensor.to("cpu", non_blocking=tensor.is_cuda)
        self._arrived: Any = None
        if tensor.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The tensor, once it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._here

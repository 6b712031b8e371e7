"""What a run takes of a GPU, whatever the processor beside it does: memory, and time at work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["busy_seconds", "peak_bytes"]


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that was allocated at a time."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def busy_seconds(run: Callable[[], object]) -> float:
    """The time of all kernels and copies together, without the gaps between them."""
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        run()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6

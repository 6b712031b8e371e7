"""Calls that share nothing run side by side, in threads that divide the cores among them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(calls: Sequence[Callable[[], T]], stop: threading.Event, threads: int) -> list[T]:
    """What several calls return, in their order.

    The matrices of small models are too small to be shared by cores, so that two models beside each other are sooner
    done than one after the other.

    Args:
        calls: each on models of its own.
        stop: set when one of them fails or the user interrupts, so that the others can end soon.
        threads: of torch, divided among the calls; 1 runs one call after the other in the thread that asks.

    Raises:
        Exception: what the first of them raised.

    Examples:
        >>> side_by_side([lambda: "a", lambda: "b"], threading.Event(), threads=2)
        ['a', 'b']
    """
    beside = min(len(calls), threads)
    if beside < 2:
        return [call() for call in calls]
    before = torch.get_num_threads()

    def alone(call: Callable[[], T]) -> T:
        torch.set_num_threads(threads // beside)
        return call()

    try:
        with ThreadPoolExecutor(beside) as pool:
            futures = [pool.submit(alone, call) for call in calls]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [future.result() for future in futures]
    finally:
        torch.set_num_threads(before)

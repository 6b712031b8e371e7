"""Tasks that share nothing run side by side, part by part, in threads that divide the cores among them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

__all__ = ["finished", "side_by_side"]

T = TypeVar("T")
Task = Generator[None, None, T]


def side_by_side(tasks: Sequence[Task[T]], stop: threading.Event, threads: int) -> list[T]:
    """What several tasks return, in their order.

    The matrices of small models are too small to be shared by cores, so that two models beside each other are sooner
    done than one after the other. After each part a task waits for its next turn, so that all are done at about
    the same time.

    Args:
        tasks: each on models of its own; it yields after each part.
        stop: set when one of them fails or the user interrupts, so that the others can end soon.
        threads: of torch, divided among the tasks; 1 runs one task after the other in the thread that asks.

    Raises:
        Exception: what the first of them raised.

    Examples:
        >>> def task(name):
        ...     yield
        ...     return name
        >>> side_by_side([task("a"), task("b")], threading.Event(), threads=2)
        ['a', 'b']
    """
    beside = min(len(tasks), threads)
    if beside < 2:
        return [finished(task) for task in tasks]
    before, waiting = torch.get_num_threads(), deque(enumerate(tasks))
    found: dict[int, T] = {}

    def turns() -> None:
        torch.set_num_threads(threads // beside)
        while waiting and not stop.is_set():
            # Who finds none leaves the rest to those who hold them.
            number, task = waiting.popleft()
            try:
                next(task)
            except StopIteration as end:
                found[number] = end.value
            else:
                waiting.append((number, task))

    try:
        with ThreadPoolExecutor(beside) as pool:
            futures = [pool.submit(turns) for _ in range(beside)]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                stop.set()
                raise
            for future in futures:
                future.result()
    finally:
        torch.set_num_threads(before)
    return [found[number] for number in range(len(tasks))]


def finished(task: Task[T]) -> T:
    """What a task returns, its parts one after the other."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            return end.value

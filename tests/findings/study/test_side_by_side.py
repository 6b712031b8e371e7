"""Tasks run at the same time, part by part; their results keep their order, and what one raises ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch

from dlens.findings.study.side_by_side import side_by_side


def task(*parts: Callable[[], Any]) -> Generator[None, None, list[Any]]:
    found = []
    for part in parts:
        found.append(part())
        yield
    return found


def test_tasks_run_at_the_same_time_on_their_share_of_the_threads() -> None:
    before, met = torch.get_num_threads(), threading.Barrier(2, timeout=60)

    def part() -> tuple[int, int]:
        met.wait()
        return torch.get_num_threads(), threading.get_ident()

    found = side_by_side([task(part), task(part)], threading.Event(), threads=4)
    assert [each[0] for [each] in found] == [2, 2]
    assert len({threading.get_ident(), *(each[1] for [each] in found)}) == 3
    assert torch.get_num_threads() == before


def test_three_tasks_of_two_slots_take_turns() -> None:
    order: list[int] = []
    met = threading.Barrier(2, timeout=60)

    def part(number: int) -> Callable[[], int]:
        def noted() -> int:
            met.wait()
            order.append(number)
            return number

        return noted

    found = side_by_side([task(part(n), part(n)) for n in range(3)], threading.Event(), threads=2)
    assert found == [[0, 0], [1, 1], [2, 2]]
    # Two at a time, and none is at its second part before all had their first.
    assert sorted(order[:3]) == [0, 1, 2]


def test_one_thread_or_one_task_stays_where_it_is() -> None:
    here = threading.get_ident()
    assert side_by_side([task(threading.get_ident) for _ in range(3)], threading.Event(), threads=1) == [[here]] * 3
    assert side_by_side([task(threading.get_ident)], threading.Event(), threads=8) == [[here]]


def test_what_one_raises_ends_the_others() -> None:
    stop, before = threading.Event(), torch.get_num_threads()
    ran: list[bool] = []

    def fails() -> None:
        raise KeyError("lost")

    def waits() -> None:
        ran.append(stop.wait(timeout=60))
        raise InterruptedError("stopped")

    with pytest.raises(KeyError, match="lost"):
        side_by_side([task(waits), task(fails), task(lambda: ran.append(False))], stop, threads=2)
    assert ran == [True] and torch.get_num_threads() == before

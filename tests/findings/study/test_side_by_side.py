"""Calls run at the same time, their results keep their order, and what one raises ends the others."""

from __future__ import annotations

import threading

import pytest
import torch

from dlens.findings.study.side_by_side import side_by_side


def test_calls_run_at_the_same_time_on_their_share_of_the_threads() -> None:
    before, met = torch.get_num_threads(), threading.Barrier(2, timeout=60)

    def call(number: int) -> tuple[int, int, int]:
        met.wait()
        return number, torch.get_num_threads(), threading.get_ident()

    found = side_by_side([lambda: call(0), lambda: call(1)], threading.Event(), threads=4)
    assert [each[:2] for each in found] == [(0, 2), (1, 2)]
    assert len({threading.get_ident(), *(each[2] for each in found)}) == 3
    assert torch.get_num_threads() == before


def test_one_thread_or_one_call_stays_where_it_is() -> None:
    here = threading.get_ident()
    assert side_by_side([threading.get_ident] * 3, threading.Event(), threads=1) == [here] * 3
    assert side_by_side([threading.get_ident], threading.Event(), threads=8) == [here]


def test_what_one_raises_ends_the_others() -> None:
    stop, before = threading.Event(), torch.get_num_threads()
    ran: list[bool] = []

    def fails() -> None:
        raise KeyError("lost")

    def waits() -> None:
        ran.append(stop.wait(timeout=60))
        raise InterruptedError("stopped")

    with pytest.raises(KeyError, match="lost"):
        side_by_side([waits, fails, lambda: ran.append(False)], stop, threads=2)
    assert stop.is_set() and True in ran and torch.get_num_threads() == before

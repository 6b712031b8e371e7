import threading

from dlens.errors import Cancelled
from dlens.widgets.job import Job


def test_work_runs_beside_and_can_be_waited_for() -> None:
    done, go = [], threading.Event()
    job = Job(done.append)
    assert job.wait()

    def work(stop: threading.Event) -> None:
        go.wait(10)
        done.append("worked")

    job.start(work)
    assert job.wait(0.01) is False and done == []
    go.set()
    assert job.wait(10) and done == ["worked"]


def test_new_work_stops_the_old_and_waits_for_it() -> None:
    order: list[str] = []
    job = Job(order.append)

    def first(stop: threading.Event) -> None:
        stop.wait(10)
        order.append("first stopped")
        raise Cancelled("stopped")

    job.start(first)
    job.start(lambda stop: order.append("second"))
    assert job.wait(10) and order == ["first stopped", "second"]


def test_work_that_was_stopped_before_it_began_does_not_begin() -> None:
    order: list[str] = []
    job, go = Job(order.append), threading.Event()
    job.start(lambda stop: order.append("first") if go.wait(10) else None)
    job.start(lambda stop: order.append("second"))
    job.stop()
    go.set()
    assert job.wait(10) and order == ["first"]


def test_an_error_is_told_in_words() -> None:
    told: list[str] = []

    def work(stop: threading.Event) -> None:
        raise ValueError("no such thing")

    job = Job(told.append)
    job.start(work)
    assert job.wait(10) and told == ["ValueError: no such thing"]

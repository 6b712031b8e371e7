"""Runs that are watched, cancelled and disturbed between their steps."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import dlens
from dlens import trace
from dlens.tracing.progress import StepView, Watch, hold, quiet, refuse_stray_call
from dlens.tracing.records.text import MASK_SIGN
from tests.refusing import STORY, assert_three_parts
from tests.tracing.plain import DECODED, PROMPTS
from tests.untouched import untouched


def test_cancelling_after_the_last_token_keeps_the_run(ar: dlens.Model) -> None:
    event = threading.Event()

    def cancel(view: Any) -> None:
        if view.step == DECODED - 1:
            event.set()

    record = dlens.trace(ar).generate(PROMPTS, DECODED, on_step=cancel, cancel=event)
    assert record.n_steps == DECODED


def test_every_step_can_be_watched(diffusion: dlens.Model, ar: dlens.Model) -> None:
    views = []
    record = dlens.trace(diffusion).generate(PROMPTS[:2], 6, on_step=views.append)
    assert [view.step for view in views] == list(range(6)) and views[0].n_steps == 6
    assert torch.equal(views[-1].tokens, record.tokens)
    assert [view.text[0].count(MASK_SIGN) for view in views] == [5, 4, 3, 2, 1, 0]
    assert views[-1].text == record.text
    views.clear()
    record = dlens.trace(ar).generate(PROMPTS[:2], 6, on_step=views.append)
    assert [view.step for view in views] == list(range(6))
    assert torch.equal(views[-1].tokens, record.tokens) and views[-1].text == record.text


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_the_module_called_between_steps(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    chain = trace(model).swap(2, 5).capture("resid_post")
    with untouched(model), pytest.raises(RuntimeError) as caught:
        chain.generate(STORY, 3, on_step=lambda view: model.module(input_ids=view.tokens, use_cache=False))
    assert_three_parts(str(caught.value), "called between steps 0 and 1")


def test_a_watch_counts_steps_and_shows_copies_of_their_tokens() -> None:
    views: list[StepView] = []
    watch = Watch(3, False, views.append, None, lambda ids: [str(row.tolist()) for row in ids])
    tokens = torch.tensor([[5, 6]])
    with watch.shown():
        watch.begin()
        watch.end(0, tokens, [1])
        tokens.zero_()
    assert watch.begun == 1 and watch.bar is None
    (view,) = views
    assert (view.step, view.n_steps, view.rows, view.text) == (0, 3, (1,), ["[5, 6]"])
    assert view.tokens.tolist() == [[5, 6]]


def test_a_cancelled_watch_begins_no_step() -> None:
    cancel = threading.Event()
    watch = Watch(3, False, None, cancel, lambda ids: [])
    watch.begin()
    cancel.set()
    with pytest.raises(dlens.Cancelled, match="cancelled between two steps"):
        watch.begin()
    assert watch.begun == 1


def test_calls_of_the_run_itself_are_not_stray() -> None:
    refuse_stray_call(0, 1)
    refuse_stray_call(2, 3)
    with pytest.raises(RuntimeError, match="called between steps 1 and 2"):
        refuse_stray_call(2, 2)


def test_a_held_lock_is_let_go_after_an_error() -> None:
    lock = threading.RLock()
    with pytest.raises(KeyError), hold(lock, None):
        raise KeyError
    taken = threading.Thread(target=lambda: lock.acquire(timeout=5) and lock.release())
    taken.start()
    taken.join(timeout=5)
    assert not taken.is_alive() and lock.acquire(blocking=False)


def test_no_bar_runs_into_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert (quiet(True), quiet(False)) == (None, True)
    watch = Watch(1, True, None, None, lambda ids: [])
    with watch.shown():
        watch.bar.delay = 0
        watch.end(0, torch.tensor([[5]]), [0])
        assert watch.bar.disable
    assert capsys.readouterr().err == ""


def test_an_interrupt_stays_one_whatever_a_library_makes_of_it() -> None:
    lock = threading.RLock()
    with pytest.raises(KeyboardInterrupt), hold(lock, None):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise TypeError("'NoneType' object cannot be interpreted as an integer") from None
    with pytest.raises(TypeError), hold(lock, None):
        raise TypeError

"""Threads, cancelling, exceptions, and callers whose source cannot be read."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from tests.reference import fresh
from tests.untouched import untouched

STORY = "Once upon a time"
SCRIPT = """
import torch, dlens
torch.set_num_threads(1)
record = dlens.trace("trio/ar").skip([3], steps=[0]).capture("resid_post").generate("Once upon a time", 2)
print(hasattr(object(), "save"))
dlens.load("trio/ar", verify=False).nnsight
assert hasattr(object(), "save")
print(torch.equal(record["resid_post"][3, :, :4], record["resid_post"][2, :, :4]), record.n_steps)
"""


def plain_logits(model: dlens.Model) -> Tensor:
    ids = torch.tensor([model.tokenizer(STORY)["input_ids"]])
    with torch.no_grad():
        return fresh(model.module)(input_ids=ids, use_cache=False).logits


class Running:
    """A run in a thread that stands still after its first step until it is let go."""

    def __init__(self, trace: dlens.Trace, cancel: threading.Event | None = None) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()
        self.steps: list[int] = []
        self.pool = ThreadPoolExecutor(1)
        self.future = self.pool.submit(trace.generate, STORY, 6, on_step=self.stand, cancel=cancel, progress=False)
        assert self.started.wait(timeout=60)

    def stand(self, view: Any) -> None:
        self.steps.append(view.step)
        self.started.set()
        assert self.go_on.wait(timeout=60)

    def result(self) -> dlens.Record:
        self.go_on.set()
        with self.pool:
            return self.future.result(timeout=60)


def test_a_second_run_waits_and_both_are_right(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3]).capture("logits")
    other = dlens.trace(dlens.load(diffusion.module, tokenizer=diffusion.tokenizer)).swap(1, 9).capture("logits")
    expected = trace.generate(STORY, 6)["logits"], other.forward(STORY)["logits"]
    with untouched(diffusion):
        first = Running(trace)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(other.forward, STORY)
            assert not second.done() and first.steps == [0]
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            assert torch.equal(first.result()["logits"], expected[0])
            assert torch.equal(second.result(timeout=60)["logits"], expected[1])


def test_runs_on_two_modules_do_not_wait_for_each_other(diffusion: dlens.Model, ar: dlens.Model) -> None:
    first = Running(dlens.trace(diffusion).skip([3]).capture("logits"))
    with ThreadPoolExecutor(1) as pool:
        record = pool.submit(dlens.trace(ar).skip([3]).capture("logits").forward, STORY).result(timeout=60)
    assert torch.equal(record["logits"], dlens.trace(ar).skip([3]).capture("logits").forward(STORY)["logits"])
    assert first.result().n_steps == 6


def test_a_waiting_run_can_be_cancelled(diffusion: dlens.Model) -> None:
    first = Running(dlens.trace(diffusion).skip([3]))
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dlens.trace(diffusion).swap(1, 2).generate, STORY, 6, cancel=cancel)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        cancel.set()
        with pytest.raises(dlens.Cancelled, match="cancelled while it waited for the model; nothing was computed; run"):
            waiting.result(timeout=60)
    assert first.result().n_steps == 6


@pytest.mark.parametrize("name", ["diffusion", "ar"])
@pytest.mark.parametrize("busy", [True, False])
def test_a_run_can_be_cancelled_between_steps(name: str, busy: bool, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    trace = dlens.trace(model)
    trace = trace.swap(2, 5).steer(torch.ones(model.d_model), layers=3) if busy else trace
    cancel = threading.Event()
    with untouched(model):
        run = Running(trace, cancel)
        cancel.set()
        with pytest.raises(dlens.Cancelled, match="cancelled between two steps; the model is as it was; run it again"):
            run.result()
    assert run.steps == [0]
    assert trace.generate(STORY, 3, cancel=threading.Event()).n_steps == 3


def test_cancelled_before_it_starts(diffusion: dlens.Model) -> None:
    cancel = threading.Event()
    cancel.set()
    calls: list[Any] = []
    handle = diffusion.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(dlens.Cancelled):
        dlens.trace(diffusion).skip([3]).generate(STORY, 3, cancel=cancel)
    handle.remove()
    assert calls == []


@pytest.mark.parametrize("name", ["diffusion", "ar"])
@pytest.mark.parametrize("point", ["embed", "blocks.4.hook_resid_pre", "blocks.4.hook_mlp_out", "logits"])
def test_an_exception_in_a_hook_leaves_the_model_clean(name: str, point: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)

    def fail(value: Tensor, hook: Any) -> None:
        raise ZeroDivisionError(f"at step {hook.step}")

    trace = dlens.trace(model).swap(2, 5).skip([9]).hook(point, fail, steps=[1])
    with untouched(model), pytest.raises(ZeroDivisionError, match="at step 1"):
        trace.generate(STORY, 3)


@pytest.mark.parametrize("name", ["diffusion", "ar"])
def test_an_exception_in_on_step_leaves_the_model_clean(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)

    def fail(view: Any) -> None:
        raise KeyError(view.step)

    with untouched(model), pytest.raises(KeyError):
        dlens.trace(model).swap(2, 5).generate(STORY, 3, on_step=fail)


@pytest.mark.parametrize("called", [2, 9])
def test_a_block_called_in_a_hook_is_not_read(diffusion: dlens.Model, called: int) -> None:
    angles = diffusion.module.get_submodule("model.rotary_emb")(torch.zeros(1, 4, 192), torch.arange(4)[None])

    def call(value: Tensor, hook: Any) -> None:
        diffusion.blocks[called](value, position_embeddings=angles, attention_mask=None)

    trace = dlens.trace(diffusion).capture("resid_post").measure(dlens.Cosine())
    plain, record = trace.forward(STORY), trace.hook("blocks.4.hook_mlp_out", call).forward(STORY)
    assert torch.equal(record["resid_post"], plain["resid_post"])
    assert record.measures["cosine"].equals(plain.measures["cosine"])


def test_the_lock_is_free_after_an_exception(diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="returned float"):
        dlens.trace(diffusion).hook("logits", lambda value, hook: 0.5).forward(STORY)
    with ThreadPoolExecutor(1) as pool:
        record = pool.submit(dlens.trace(diffusion).capture("logits").forward, STORY).result(timeout=60)
    assert torch.equal(record["logits"], plain_logits(diffusion))


def test_in_a_thread_that_made_the_trace(diffusion: dlens.Model) -> None:
    def work() -> Tensor:
        model = dlens.load(fresh(diffusion.module), tokenizer=diffusion.tokenizer)
        return (
            dlens.trace(model).hook("logits", lambda value, hook: value + 1).capture("logits").forward(STORY)["logits"]
        )

    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(work).result(timeout=60), plain_logits(diffusion) + 1)


def test_in_code_that_has_no_source(diffusion: dlens.Model) -> None:
    names: dict[str, Any] = {"dlens": dlens, "model": diffusion}
    exec(
        "seen = []\n"
        "trace = dlens.trace(model).hook('logits', lambda value, hook: seen.append(hook.step) or value * 2)\n"
        "logits = trace.capture('logits').forward('Once upon a time')['logits']",
        names,
    )
    assert names["seen"] == [0]
    assert torch.equal(names["logits"], plain_logits(diffusion) * 2)


def test_in_a_script_from_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-"], input=SCRIPT, capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout.strip(), done.returncode) == ("False\nTrue 2", 0), done.stderr


def test_a_plain_call_from_another_thread_is_refused_and_the_run_is_right(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3]).steer(torch.ones(192), layers=5, at="mlp_out").capture("logits")
    expected = trace.generate(STORY, 6)
    ids, module = expected.tokens, diffusion.module
    first = Running(trace)
    for part, given in ((module, ids), (module.model, ids), (module.model.layers[5].mlp, torch.ones(1, 4, 192))):  # pyright: ignore
        with pytest.raises(RuntimeError, match="called while another thread runs a trace of it; expected .*model.lock"):
            part(given)
    record = first.result()
    assert torch.equal(record.tokens, expected.tokens) and torch.equal(record["logits"], expected["logits"])
    with diffusion.lock, torch.no_grad():
        assert module(ids).logits.shape[-1] == diffusion.vocab_size

"""Forwards of many batches in one trace are those of a trace each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlens
from dlens.axes import hook_name
from dlens.ops.base.tokens import TokenSpec
from dlens.tracing import engine
from dlens.tracing.chain import Trace
from dlens.tracing.forwards import run_forwards
from dlens.tracing.planning.inputs import as_batch
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.prepare import check_run, prepare
from dlens.tracing.step.gather import Gather
from dlens.tracing.streams.shard import Mark, Part
from tests.reference import shallow
from tests.refusing import assert_three_parts

MASK = 1
# Unlike lengths and shares of masks, the longest first.
BATCHES = [[[5, MASK, MASK, 6, 7], [8, 9, MASK]], [[10, 11, 12, 13], [MASK, 14]], [[15, MASK]]]
VECTOR = torch.linspace(-3, 3, 192)


@pytest.fixture(scope="module")
def base(diffusion: dlens.Model) -> Trace:
    assert diffusion.family.mask_token_id == MASK
    return dlens.trace(shallow(diffusion, 3))


def swept(trace: Trace, batches: list[list[list[int]]], tokens: TokenSpec = "all") -> tuple[list[Part], int]:
    """What one trace over batches hands on, and in how many something found nothing to act on."""
    parts: list[Part] = []
    gather, read = Gather(tokens, parts.append), [as_batch(trace.model, rows) for rows in batches]
    shape = run_shape(trace.model, read[0])
    plan = check_run(trace.model, trace.target, trace.ops, shape, read[0].real, 10**9)

    def each() -> Any:
        for number, batch in enumerate(read):
            numbers = torch.arange(len(batch.ids))
            gather.start(Mark(number), numbers, (~batch.real).sum(-1), None, batch.ids.shape[-1])
            yield batch
            gather.end()

    idle = run_forwards(prepare(trace.model, trace.target, trace.ops, shape, plan, gather), each())
    return parts, idle


CHAINS: dict[str, Callable[[Trace], Trace]] = {
    "nothing": lambda t: t,
    "named positions": lambda t: t.steer(VECTOR, layers=1, tokens=[1]),
    "positions from the end": lambda t: t.ablate(1, [3], 2.0, tokens=[-1]),
    "masked positions": lambda t: t.steer(VECTOR, layers=0, tokens="masked"),
    "rows by noise": lambda t: t.steer(VECTOR, layers=1, noise=(0.35, 1.0)),
    "blocks by noise": lambda t: t.swap(0, 1, noise=(0.35, 1.0)),
    "blocks in another order": lambda t: t.swap(0, 2),
    "hidden keys": lambda t: t.knockout([1], source=[0], target=slice(1, None)),
    "half a block": lambda t: t.skip([1], part="attn"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_each_batch_is_that_of_a_trace_of_its_own(base: Trace, name: str) -> None:
    trace = CHAINS[name](base).capture("resid_post", "logits")
    parts, idle = swept(trace, BATCHES)
    assert len(parts) == 3 and [part.mark for part in parts] == [Mark(1), Mark(2), Mark(3)]
    missed = 0
    for part, rows in zip(parts, BATCHES, strict=True):
        try:
            record = trace.forward(rows)
        except dlens.NeverFired as error:
            record, missed = error.record, missed + 1
        real = ~record.is_pad
        for layer in range(3):
            assert torch.equal(part.values[f"blocks.{layer}.hook_resid_post"], record["resid_post"][layer, real])
        assert torch.equal(part.values[hook_name("logits")], record["logits"][real])
        assert torch.equal(part.places.token, record.tokens[real].int())
        masked = record.tokens == MASK
        assert torch.equal(part.places.state, masked[real].to(torch.int8))
        noise = masked.sum(-1).double() / real.sum(-1)
        assert torch.equal(part.places.noise, noise[:, None].expand_as(real)[real])
    assert idle == missed


def test_batches_in_which_an_edit_finds_nothing_are_counted(base: Trace) -> None:
    batches = [[[5, MASK, 6], [7]], [[8, 9]], [[10]], [[MASK]]]
    assert swept(base.ablate(1, tokens="masked").capture("logits"), batches)[1] == 2
    assert swept(base.skip([1], noise=(0.5, 1.0)).capture("logits"), batches)[1] == 3
    assert swept(base.capture("logits"), batches)[1] == 0


def test_one_trace_is_opened_whatever_the_number_of_batches(base: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, trace = [], engine._trace
    monkeypatch.setattr(engine, "_trace", lambda *given: opened.append(1) or trace(*given))
    # More than there are programs kept: each batch names positions of its own.
    batches = [[[5, 6, 7 + n % 9]] for n in range(2 * engine._PROGRAMS + 3)]
    parts, _ = swept(base.steer(VECTOR, layers=0, tokens=[1]).capture("embed"), batches)
    assert opened == [1] and len(parts) == len(batches)
    assert [part.places.token[2].item() for part in parts] == [rows[0][2] for rows in batches]


def test_no_module_is_left_changed(base: Trace) -> None:
    model, ids = base.model, torch.tensor([[5, 6, 7]])
    before = model.fingerprint()
    swept(base.swap(0, 2).skip([1]).capture("resid_post"), BATCHES)
    assert model.fingerprint() == before
    with pytest.raises(KeyError):
        swept(base.swap(0, 2).hook("hook_embed", failing).capture("resid_post"), BATCHES)
    assert model.fingerprint() == before and torch.isfinite(model.module(input_ids=ids).logits).all()


def failing(value: Tensor, hook: Any) -> None:
    if value.shape[1] == 4:
        raise KeyError("the second batch")


def test_a_call_of_the_module_by_a_function_of_the_run_is_refused(base: Trace) -> None:
    def call(part: nn.Module, args: Any, out: Any) -> None:
        if args[0].shape[1] > 1:
            base.model.module(input_ids=torch.tensor([[5]]))

    handle = base.model.embed.register_forward_hook(call)
    try:
        with pytest.raises(RuntimeError) as caught:
            swept(base.capture("resid_post"), BATCHES)
    finally:
        handle.remove()
    assert_three_parts(str(caught.value), "was called within a forward of a run")


def test_what_stops_a_batch_comes_out_as_it_is(base: Trace, tmp_path: Path) -> None:
    def stop(part: Part) -> None:
        raise OSError("the disk is full")

    gather = Gather("all", stop)
    batch, trace = as_batch(base.model, [[5, 6]]), base.capture("logits")
    shape = run_shape(trace.model, batch)
    plan = check_run(trace.model, trace.target, trace.ops, shape, batch.real, 10**9)

    def each() -> Any:
        gather.start(Mark(0), torch.tensor([0]), torch.tensor([0]), None, 2)
        yield batch
        gather.end()

    with pytest.raises(OSError, match="the disk is full"):
        run_forwards(prepare(trace.model, trace.target, trace.ops, shape, plan, gather), each())

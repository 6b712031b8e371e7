"""Played steps are those that are computed one by one, to the bit; what cannot be played is not, and is named."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch

import dlens
from dlens import caches
from dlens.samplers import LLaDA
from dlens.tracing.replay import replays
from dlens.tracing.replay.recorder import Constants
from tests.refusing import assert_three_parts
from tests.tape import TapeRecorder

NEW = 6
STEPS = LLaDA(steps=NEW, block_length=NEW)
VECTOR = torch.linspace(-1, 1, 192)
CHAINS: dict[str, Callable[[dlens.Trace], dlens.Trace]] = {
    "nothing": lambda trace: trace,
    "skip": lambda trace: trace.skip([1]).skip([2], part="mlp"),
    "skip some steps": lambda trace: trace.skip([1], steps=slice(0, 5)),
    "swap and repeat": lambda trace: trace.swap(0, 2).repeat(1, 2),
    "ablate": lambda trace: trace.ablate(1, [3, 5]).ablate(2, at="z", heads=[0], tokens="masked"),
    "steer": lambda trace: trace.steer(VECTOR, layers=1, scale=3.0, tokens="decoded"),
    "steer by noise": lambda trace: trace.steer(VECTOR, layers=2, noise=(0.3, 0.8)),
    "knockout": lambda trace: trace.knockout([1], source="masked", target="prompt"),
    "measures": lambda trace: trace.measure(dlens.Cosine(), dlens.Norms()),
    "both": lambda trace: trace.skip([1]).measure(dlens.Cosine(name="before")).ablate(2, [1]).measure(dlens.Norms()),
}


@pytest.fixture(scope="module")
def model() -> dlens.Model:
    """A shallow one, as every step costs its blocks."""
    deep = dlens.load("trio/diffusion")
    module: Any = copy.deepcopy(deep.module)
    module.model.layers = module.model.layers[:3]
    module.config.num_hidden_layers = 3
    module.config.layer_types = module.config.layer_types[:3]
    return dlens.load(module, tokenizer=deep.tokenizer, family=deep.family, verify=False)


@pytest.fixture
def tapes(model: dlens.Model) -> Iterator[list[TapeRecorder]]:
    """Machines without a GPU record on tape; nothing was recorded before."""
    made: list[TapeRecorder] = []
    model.memo.clear()

    def recorder(device: torch.device, packed: bool, kept: dict[Any, Any]) -> TapeRecorder:
        made.append(TapeRecorder(packed))
        return made[-1]

    with mock.patch("dlens.tracing.denoising.recorder_for", recorder):
        yield made


def _both(chain: dlens.Trace, prompts: Any, sampler: Any = STEPS, seed: int = 0) -> tuple[dlens.Record, dlens.Record]:
    """One by one, and played."""

    def run(replay: Any) -> dlens.Record:
        return chain.generate(prompts, NEW, sampler=sampler, seed=seed, progress=False, replay=replay)

    return run("off"), run("auto")


def _same(a: dlens.Record, b: dlens.Record) -> None:
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.canvas, b.canvas) and a.text == b.text
    assert (a.flops, a.saved_flops, a.unfired) == (b.flops, b.saved_flops, b.unfired)
    for key, dataset in a.measures.items():
        assert dataset.identical(b.measures[key]), key


@pytest.mark.parametrize(
    ("case", "guidance"), [*((case, 0.0) for case in CHAINS), ("both", 1.0)], ids=[*CHAINS, "guided"]
)
def test_played_steps_are_the_computed_ones(
    case: str, guidance: float, model: dlens.Model, tapes: list[TapeRecorder]
) -> None:
    chain, prompts = CHAINS[case](dlens.trace(model)), ["Once upon a time", "Two and two are"]
    sampler = LLaDA(steps=NEW, block_length=NEW, guidance=guidance)
    off, auto = _both(chain, prompts, sampler)
    _same(off, auto)
    [note] = [note for note in auto.notes if "played" in note]
    assert 1 <= int(note.split(" of ")[0]) <= 5 and sum(tape.recorded for tape in tapes) in (1, 2)
    assert not any("played" in note for note in off.notes)


def test_what_a_recording_reads_stands_as_long_as_it_is_played(
    model: dlens.Model, tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Constants]] = []

    def noted() -> Constants:
        constants = Constants()
        made.append(weakref.ref(constants))
        return constants

    monkeypatch.setattr(replays, "Constants", noted)
    alive: list[bool] = []
    dlens.trace(model).steer(VECTOR, layers=1).generate(
        "Once", NEW, sampler=STEPS, progress=False, on_step=lambda view: alive.append(made[0]() is not None)
    )
    assert alive == [True] * NEW and len(made) == 1
    gc.collect()
    assert made[0]() is None


@pytest.mark.parametrize(
    ("case", "at_once"),
    [("nothing", True), ("skip", True), ("swap and repeat", True), ("measures", True), ("ablate", False)],
)
def test_what_was_recorded_before_is_recorded_at_once(
    case: str, at_once: bool, model: dlens.Model, tapes: list[TapeRecorder]
) -> None:
    chain = CHAINS[case](dlens.trace(model))
    before, (off, auto) = _both(chain, [[9, 10, 11]])[1], _both(chain, [[12, 13, 14]], seed=1)
    _same(off, auto)
    assert "5 of 6 steps were played" in before.notes[-1]
    assert f"{6 if at_once else 5} of 6 steps were played" in auto.notes[-1]
    # Before the second and the third block that computes; one that is repeated computes more than once.
    least = 1 if case == "skip" else 2
    assert tapes[-1].recorded == 1 and (tapes[-1].cuts >= least) == (tapes[-1].cuts > 0) == at_once
    # A canvas of another size finds other kernels.
    longer = _both(chain, [[9, 10, 11, 12]])[1]
    assert "5 of 6 steps were played" in longer.notes[-1]


def test_what_cannot_be_recorded_at_once_is_computed_first(
    model: dlens.Model, tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = dlens.trace(model).skip([1]).measure(dlens.Cosine())
    _both(chain, [[9, 10, 11]])
    record, failed = TapeRecorder.record, []

    def fails_once(self: TapeRecorder, compute: Any, at_once: bool) -> Any:
        if not failed:
            failed.append(compute())
            raise RuntimeError("a kernel is not there yet")
        return record(self, compute, at_once)

    monkeypatch.setattr(TapeRecorder, "record", fails_once)
    off, auto = _both(chain, [[12, 13, 14]])
    _same(off, auto)
    # What copies more than its edits do is noted then, and the next run begins as the first did.
    assert failed and "5 of 6 steps were played" in auto.notes[-1]
    assert ["5 of 6", "6 of 6"] == [_both(chain, [[12, 13, 14]])[1].notes[-1][:6] for _ in range(2)]


@pytest.mark.parametrize("layers", [[1], [0, 1], [1, 2], [0, 1, 2]])
def test_a_recording_is_cut_before_blocks_that_compute(
    layers: list[int], model: dlens.Model, tapes: list[TapeRecorder]
) -> None:
    chain = dlens.trace(model).swap(0, 2).skip(layers)
    off, auto = [_both(chain, [[9, 10, 11]]) for _ in range(2)][1]
    _same(off, auto)
    assert "6 of 6" in auto.notes[-1] and tapes[-1].cuts == (len(layers) < 3)


def test_padded_rows_are_recorded_at_once_after_padded_ones(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    chain, padded = dlens.trace(model).skip([1]), [[9, 10, 11], [12, 13]]
    notes = [_both(chain, rows)[1].notes[-1][:6] for rows in ([[9, 10, 11], [12, 13, 14]], padded, padded)]
    assert notes == ["5 of 6", "5 of 6", "6 of 6"]


def test_a_fault_that_says_nothing_is_raised_as_it_is(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    class Broken(dlens.Norms):
        working = True

        def update(self, sums: Any, visit: Any) -> None:
            if not self.working:
                raise AssertionError
            super().update(sums, visit)

    chain = dlens.trace(model).measure(Broken())
    _both(chain, [[9, 10, 11]])
    Broken.working = False
    with pytest.raises(AssertionError):
        chain.generate([[9, 10, 11]], NEW, sampler=STEPS, progress=False)


def test_a_canvas_that_is_written_later_changes_no_record(model: dlens.Model) -> None:
    kept: list[torch.Tensor] = []

    class Keeps(dlens.samplers.Denoiser):
        def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
            return 1

        def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
            kept.append(canvas.where(~generated, forward(canvas).argmax(-1)))
            return kept[-1]

    record = dlens.trace(model).generate([[9, 10, 11]], NEW, sampler=Keeps(), progress=False)
    before = record.tokens.clone()
    kept[0].zero_()
    assert torch.equal(record.tokens, before)


def test_padded_prompts_and_further_samplers(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    chain = dlens.trace(model).skip([1]).measure(dlens.Cosine())
    for sampler in (LLaDA(steps=NEW, temperature=0.7), dlens.samplers.Dream(steps=NEW), dlens.samplers.Threshold(0.9)):
        off, auto = _both(chain, ["Once upon a time", "Two"], sampler, 3)
        _same(off, auto)


def test_steps_with_captures_and_hooks_are_computed(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    trace = dlens.trace(model).capture("resid_post", layers=[1], steps=[4])
    off, auto = (
        trace.generate("Once upon a time", NEW, sampler=STEPS, progress=False, replay=replay)
        for replay in ("off", "auto")
    )
    assert torch.equal(off["resid_post"], auto["resid_post"])
    assert "4 of 6 steps were played from a recording; steps with 'capture resid_post" in auto.notes[-1]
    seen: list[int] = []
    hooked = dlens.trace(model).hook("blocks.1.hook_resid_post", lambda value, hook: seen.append(hook.step))
    record = hooked.generate("Once upon a time", NEW, sampler=STEPS, progress=False)
    assert seen == list(range(NEW)) and "0 of 6 steps were played" in record.notes[-1]


def test_a_step_that_few_follow_is_not_recorded(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    record = dlens.trace(model).skip([1], steps=slice(0, 3)).generate("Once", NEW, sampler=STEPS, progress=False)
    assert "0 of 6 steps were played" in record.notes[-1] and not sum(tape.recorded for tape in tapes)


def test_what_waits_for_the_device_is_computed_from_the_start(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    class Asks(dlens.Norms):
        def update(self, sums: Any, visit: Any) -> None:
            if bool((visit.cells.state >= 0).any()):
                super().update(sums, visit)

    chain = dlens.trace(model).measure(Asks())
    off, auto = (
        chain.generate("Once upon a time", NEW, sampler=STEPS, progress=False, replay=replay)
        for replay in ("off", "auto")
    )
    _same(off, auto)
    assert "one by one, as none could be recorded: RuntimeError: aten._local_scalar_dense" in auto.notes[-1]
    with pytest.raises(RuntimeError, match="waits for the device"):
        chain.generate("Once upon a time", NEW, sampler=STEPS, progress=False, replay="require")
    _same(off, chain.generate("Once upon a time", NEW, sampler=STEPS, progress=False, replay="off"))


def test_a_measure_of_ones_own_is_not_played_unless_it_says_so(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    class Steps(dlens.Measure):
        points = ("resid_post",)

        def start(self, span: Any) -> Any:
            return {"steps": torch.zeros(span.n_steps)}

        def update(self, sums: Any, visit: Any) -> None:
            if visit.last:
                sums["steps"][visit.step] = visit.step

        def result(self, sums: Any, span: Any) -> Any:
            import xarray

            return xarray.Dataset({"steps": ("step", sums["steps"].numpy())})

    record = dlens.trace(model).measure(Steps()).generate("Once upon a time", NEW, sampler=STEPS, progress=False)
    assert record.measures["steps"]["steps"].values.tolist() == list(range(NEW)) and not sum(t.recorded for t in tapes)


@pytest.mark.parametrize(
    ("chain", "steps", "came"),
    [
        (lambda trace: trace.capture("resid_post"), NEW, "'capture resid_post' needs its steps"),
        (lambda trace: trace, 3, "3 steps are too few"),
    ],
    ids=["capture", "few steps"],
)
def test_required_and_impossible(
    chain: Callable[[dlens.Trace], dlens.Trace], steps: int, came: str, model: dlens.Model, tapes: list[TapeRecorder]
) -> None:
    with pytest.raises(ValueError) as error:
        sampler = LLaDA(steps=steps, block_length=NEW)
        chain(dlens.trace(model)).generate("Once upon a time", NEW, sampler=sampler, progress=False, replay="require")
    assert_three_parts(str(error.value), came)


def test_a_run_that_is_not_played_says_why(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    trace, few = dlens.trace(model), LLaDA(steps=3, block_length=NEW)
    for why, settings in {
        "3 steps are too few for a recording to pay": {"sampler": few},
        "a cache chooses what each step computes": {"sampler": STEPS, "cache": caches.Dual()},
    }.items():
        record = trace.generate("Once upon a time", NEW, progress=False, **settings)
        assert record.notes == (f"steps were computed one by one, as {why}",)
    assert trace.generate("Once upon a time", NEW, progress=False, sampler=few, replay="off").notes == ()


def test_steps_beyond_the_plan_are_played_too(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    class Slow(dlens.samplers.Denoiser):
        def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
            return NEW

        def decode(self, forward: Any, canvas: Any, generated: Any, new_tokens: int, tokens: Any, draw: Any) -> Any:
            found = [forward(canvas) for _ in range(NEW + 4)]
            return canvas.where(~generated, found[-1].argmax(-1))

    off, auto = _both(dlens.trace(model).measure(dlens.Cosine()), "Once upon a time", Slow())
    _same(off, auto)
    assert "7 of 10 steps were played" in " ".join(auto.notes)


def test_a_processor_records_nothing(model: dlens.Model, ar: dlens.Model) -> None:
    with pytest.raises(ValueError) as error:
        dlens.trace(model).generate("Once upon a time", NEW, sampler=STEPS, replay="require")
    assert_three_parts(str(error.value), "it is on a cpu device")
    with pytest.raises(ValueError) as error:
        dlens.trace(ar).generate("Once upon a time", NEW, replay="require")
    assert_three_parts(str(error.value), "replay='require' on trio/ar")
    record = dlens.trace(model).generate("Once upon a time", NEW, sampler=STEPS)
    assert not any("played" in note for note in record.notes)


def test_another_run_plays_nothing_of_the_last(model: dlens.Model, tapes: list[TapeRecorder]) -> None:
    first = dlens.trace(model).generate("Once upon a time", NEW, sampler=STEPS, progress=False)
    weight: Any = model.blocks[1].get_submodule("mlp.down_proj").weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(-3)
    try:
        off, auto = _both(dlens.trace(model), "Two and two are")
    finally:
        with torch.no_grad():
            weight.copy_(before)
    _same(off, auto)
    assert torch.equal(first.tokens, dlens.trace(model).generate("Once upon a time", NEW, sampler=STEPS).tokens)

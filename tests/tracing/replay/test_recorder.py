"""What a step brings to a device is known when it is recorded; graphs begin, end and play in their order."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from dlens.tracing.replay.recorder import Constants, CudaRecorder, recorder_for


def test_copies_are_taken_from_the_device() -> None:
    known, rows, places = Constants(), torch.tensor([True, False]), torch.tensor([3, 5])
    with known:
        rows.to("meta")
        places.to("meta", torch.float32)
        torch.empty(2, device="meta").copy_(places)
        rows.to(torch.float32)  # brings nothing to a device
    with known.given(), known:
        assert rows.to("meta").dtype == torch.bool
        assert places.clone().to("meta", torch.float32).device.type == "meta"
        into = torch.empty(2, device="meta")
        assert into.copy_(places) is into


@pytest.mark.parametrize(
    "changed", [torch.tensor([3, 6]), torch.tensor([3]), torch.tensor([3.0, 5.0])], ids=["value", "shape", "kind"]
)
def test_other_numbers_than_before_are_refused(changed: torch.Tensor) -> None:
    known = Constants()
    with known:
        torch.tensor([3, 5]).to("meta")
    with pytest.raises(RuntimeError, match="copies something else from the processor's memory"), known.given(), known:
        changed.to("meta")


def test_what_a_run_copies_once_is_missed_by_none_after_it() -> None:
    known, once, more = Constants(), torch.tensor([1, 2]), torch.tensor([3, 5])
    with known:
        once.to("meta")
        more.to("meta")
        more.to("meta", torch.float64)
    with known.given(), known:
        assert more.to("meta").dtype == torch.int64 and more.to("meta", torch.float64).dtype == torch.float64
    with pytest.raises(RuntimeError, match="copies something else"), known.given(), known:
        more.to("meta", torch.float32)


def test_numbers_that_are_none_are_the_same() -> None:
    known, values = Constants(), torch.tensor([1.0, torch.nan])
    with known:
        values.to("meta")
    with known.given(), known:
        assert values.clone().to("meta").shape == (2,)


def test_a_processor_has_no_recorder() -> None:
    assert recorder_for(torch.device("cpu"), packed=False, kept={}) is None


class FakeGraph:
    """What torch's graphs are called with, in their order, on machines without a GPU."""

    def __init__(self, said: list[str], fails: set[str]) -> None:
        self.number = sum(word.startswith("made") for word in said)
        self.said, self.fails = said, fails
        said.append(f"made {self.number}")

    def _say(self, word: str) -> None:
        self.said.append(f"{word} {self.number}")
        if f"{word} {self.number}" in self.fails:
            raise RuntimeError(f"{word} failed")

    def capture_begin(self, **settings: Any) -> None:
        self._say("begin")

    def capture_end(self) -> None:
        self._say("end")

    def replay(self) -> None:
        self._say("play")

    def pool(self) -> int:
        return self.number


class FakeStream:
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def wait_stream(self, other: Any) -> None:
        self.said.append("wait")


def _fake_cuda(monkeypatch: pytest.MonkeyPatch, *fails: str) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(said, set(fails)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(said))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream(said))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    return said


def test_parts_are_played_as_soon_as_they_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    said, kept = _fake_cuda(monkeypatch), {}
    recorder = CudaRecorder(torch.device("cpu"), False, kept)

    def compute() -> torch.Tensor:
        recorder.cut()
        recorder.cut()
        return torch.ones(2)

    recording = recorder.record(compute, at_once=True)
    parts = [f"{word} {part}" for part in (1, 2, 3) for word in ("made", "begin", "end", "play")]
    assert said == ["made 0", "begin 0", "end 0", "wait", *parts, "wait"]
    del said[:]
    recording.play()
    assert said == ["play 1", "play 2", "play 3"]
    del said[:]
    whole = recorder.record(compute, at_once=False)
    assert not any(word.startswith("play") for word in said)
    whole.play()
    # In the memory of the first one, which stays.
    assert [word for word in said if word.startswith("play")] == [said[-1]] and len(kept) == 1


@pytest.mark.parametrize("fails", [(), ("end 2",), ("begin 2",), ("begin 1",), ("play 1",)], ids=str)
def test_after_a_failure_another_place_is_recorded_in(fails: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    said, kept = _fake_cuda(monkeypatch, *fails), {}
    recorder = CudaRecorder(torch.device("cpu"), False, kept)

    def compute() -> torch.Tensor:
        recorder.cut()
        if not fails:
            raise RuntimeError("asked for a number")
        return torch.ones(2)

    with pytest.raises(RuntimeError, match="failed|asked for a number"):
        recorder.record(compute, at_once=True)
    assert not kept and said[-1] == "wait"  # for what was played
    begun, ended = ([word.split()[1] for word in said if word.startswith(what)] for what in ("begin", "end"))
    assert len(set(ended)) == len(ended) and {*begun} - {*ended} <= {name.split()[1] for name in fails}
    monkeypatch.undo()
    again = _fake_cuda(monkeypatch)
    CudaRecorder(torch.device("cpu"), False, kept).record(lambda: torch.ones(1), at_once=True)
    assert again.count("made 0") == 1 and len(kept) == 1

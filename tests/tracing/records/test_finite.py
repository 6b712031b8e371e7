"""Logits that are NaN or infinite are noted, however a run came by them."""

from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.samplers import Autoregressive, LLaDA
from dlens.tracing.records.finite import broken, broken_notes

NAN, INF = float("nan"), float("inf")


def spoilt(number: float, index: Any = ...) -> Any:
    def hook(value: Tensor, hook: Any) -> Tensor:
        value[index] = number
        return value

    return hook


@pytest.mark.parametrize("row", [[NAN, 1.0], [1.0, INF], [-INF, -INF]])
def test_a_row_without_a_finite_largest_score_is_broken(row: list[float]) -> None:
    assert bool(broken(torch.tensor([[1.0, -INF], row])))
    assert not bool(broken(torch.tensor([[1.0, -INF]]))) and not bool(broken(torch.zeros(0, 5)))


def test_the_note_names_the_first_steps() -> None:
    assert broken_notes([]) == () == broken_notes([torch.tensor(False)])
    [note] = broken_notes([torch.tensor(step % 2 == 1) for step in range(30)])
    assert note.startswith("logits are NaN or infinite at steps 1, 3, 5, 7, 9, 11, 13, 15, ...: what follows")


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_denoising_run_notes_it(diffusion: dlens.Model, guidance: float) -> None:
    trace, sampler = dlens.trace(diffusion), LLaDA(guidance=guidance)
    assert trace.generate("Once upon", 3, sampler=sampler).notes == ()
    record = trace.hook("resid_post", spoilt(NAN), layers=3, steps=[1]).generate("Once upon", 3, sampler=sampler)
    assert [note.split(":")[0] for note in record.notes] == ["logits are NaN or infinite at step 1"]
    record = trace.hook("logits", spoilt(NAN, (..., 7)), steps=[0, 2]).generate("Once upon", 3, sampler=sampler)
    assert [note.split(":")[0] for note in record.notes] == ["logits are NaN or infinite at steps 0, 2"]


def test_a_decoding_run_notes_it_and_draws_nothing_from_it(ar: dlens.Model) -> None:
    trace = dlens.trace(ar).hook("resid_post", spoilt(INF), layers=3, steps=[1])
    record = trace.generate("Once upon", 3)
    assert record.notes[-1].startswith("logits are NaN or infinite at step")
    with pytest.raises(ValueError, match="the logits of step 1 are NaN or infinite; expected finite ones to draw"):
        trace.generate("Once upon", 3, sampler=Autoregressive(temperature=1.0))


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_a_forward_notes_it(name: str, request: pytest.FixtureRequest) -> None:
    trace = dlens.trace(request.getfixturevalue(name))
    assert trace.forward(["Once upon", "Once"]).notes == ()
    record = trace.hook("resid_post", spoilt(NAN), layers=3).measure(dlens.Outliers()).forward("Once upon")
    assert record.notes[0].startswith("logits are NaN or infinite at step 0")
    assert record.measures["outliers"]["top_channel"].values.tolist()[3:] == [-1] * 13

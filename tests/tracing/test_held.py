"""Layers are kept back only where that cannot change what a measure sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from dlens.measures.measure import Cells, Measure, Span, Sums, Visit
from dlens.tracing import held
from dlens.tracing.held import Held

CELLS = Cells(torch.tensor([0]), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long))


@dataclass(frozen=True, kw_only=True)
class Told(Measure):
    """Notes which layers came together, and what their first number was."""

    seen: list[tuple[list[int], list[float]]] = field(default_factory=list)

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    def start(self, span: Span) -> Sums:
        return {}

    def update(self, sums: Sums, visit: Visit) -> None:
        self.update_layers(sums, [visit])

    def update_layers(self, sums: Sums, visits: Sequence[Visit]) -> None:
        values = [float(visit.values["resid_post"][0, 0, 0]) for visit in visits]
        self.seen.append(([visit.layer for visit in visits], values))

    def result(self, sums: Sums, span: Span) -> Any:
        return None


def run_step(holder: Held, measure: Told, step: int, overwrite: bool = False) -> list[tuple[list[int], list[float]]]:
    """Three layers of one step; what came of them."""
    measure.seen.clear()
    values = [torch.full((1, 2, 4), float(layer)) for layer in range(3)]
    for layer, value in enumerate(values):
        if overwrite and layer:
            values[layer - 1].add_(10)
        holder.add(measure, {}, Visit(step, layer, {"resid_post": value}, CELLS), last=layer == 2)
    return list(measure.seen)


def test_the_first_step_is_handed_on_at_once_and_later_ones_together() -> None:
    holder, measure = Held(True), Told()
    assert [layers for layers, _ in run_step(holder, measure, 0)] == [[0], [1], [2]]
    assert run_step(holder, measure, 1) == [([0, 1, 2], [0.0, 1.0, 2.0])]
    assert run_step(holder, measure, 2) == [([0, 1, 2], [0.0, 1.0, 2.0])]


def test_a_model_that_writes_over_its_stream_is_read_at_once() -> None:
    holder, measure = Held(True), Told()
    for step in range(3):
        assert run_step(holder, measure, step, overwrite=True) == [([0], [0.0]), ([1], [1.0]), ([2], [2.0])]


def test_nothing_is_kept_back_where_it_may_not() -> None:
    holder, measure = Held(False), Told()
    run_step(holder, measure, 0)
    assert [layers for layers, _ in run_step(holder, measure, 1)] == [[0], [1], [2]]


def test_a_model_that_starts_to_write_over_its_stream_is_an_error() -> None:
    holder, measure = Held(True), Told()
    run_step(holder, measure, 0)
    with pytest.raises(RuntimeError, match="wrote over a value that a measure reads"):
        run_step(holder, measure, 1, overwrite=True)


def test_no_more_is_kept_back_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "LIMIT", 2 * 2 * 4 * 4)
    holder, measure = Held(True), Told()
    run_step(holder, measure, 0)
    assert [layers for layers, _ in run_step(holder, measure, 1)] == [[0, 1], [2]]
    assert holder.size == 0


def test_tensors_of_inference_mode_are_read_at_once() -> None:
    holder, measure = Held(True), Told()
    with torch.inference_mode():
        run_step(holder, measure, 0)
        assert [layers for layers, _ in run_step(holder, measure, 1)] == [[0], [1], [2]]

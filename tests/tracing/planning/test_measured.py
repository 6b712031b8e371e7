"""Measures among the operations of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import pytest
import torch

import dlens
from dlens.measures.base.measure import Span, Sums, Visit


@final
@dataclass(frozen=True, kw_only=True)
class Inner(dlens.Measure):
    """A measure of one point, which counts its visits."""

    point: str = "attn_out"

    @property
    def points(self) -> tuple[str, ...]:
        return (self.point,)

    def start(self, span: Span) -> Sums:
        return {"n": torch.zeros(span.n_layers)}

    def update(self, sums: Sums, visit: Visit) -> None:
        sums["n"][visit.at] += len(visit.values)

    def result(self, sums: Sums, span: Span) -> Any:
        import xarray as xr

        return xr.Dataset({"n": ("layer", sums["n"].numpy())})


def test_measures_of_inner_points_follow_the_rules_of_captures(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).measure(Inner())
    assert trace.forward([[5, 6]]).measures["inner"]["n"].values.tolist() == [1] * 16
    for other in (trace.skip, trace.repeat):
        with pytest.raises(ValueError, match="cannot both hold"):
            other(3)  # type: ignore[operator]
    pattern = dlens.trace(diffusion).measure(Inner(point="pattern"))
    assert pattern.forward([[5, 6]]).measures["inner"]["n"].values.tolist() == [1] * 16
    with pytest.raises(ValueError, match="cannot both hold: pattern of layer 3"):
        pattern.skip(3, part="attn")
    with pytest.raises(ValueError, match="reads 'logits'; expected points of a block"):
        dlens.trace(diffusion).measure(Inner(point="logits"))


def test_a_measure_in_words_and_in_the_plan(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).measure(dlens.Cosine(name="mine"), Inner())
    assert str(trace).splitlines()[1:] == ["  measure mine", "  measure inner"]
    plan = trace.forward([[5, 6]]).plan
    assert [(entry["op"], entry["measure"], entry["key"]) for entry in plan] == [
        ("measure", "Cosine", "mine"),
        ("measure", "Inner", "inner"),
    ]

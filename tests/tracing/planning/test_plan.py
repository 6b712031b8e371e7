"""Operations that cannot both hold, and those that can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


def refused(verb: Callable[[], dlens.Trace], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verb()


def test_places_that_swaps_join_belong_to_two_blocks_where_rows_disagree(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).swap(2, 7, noise=(0.3, 0.8)).swap(7, 9)
    for layer in (2, 7, 9):
        point = f"blocks.{layer}.hook_attn_out"
        refused(partial(trace.capture, point), f"attn_out of layer {layer} would belong to two blocks")
        refused(partial(trace.skip, [layer], part="mlp"), "half of a block cannot be skipped")
        refused(partial(trace.repeat, layer), f"layer {layer} is repeated and swapped row by row")
    mask = diffusion.family.mask_token_id
    record = trace.capture("blocks.8.hook_attn_out").forward([[5, mask, mask], [5, 6, 7]])
    assert record["blocks.8.hook_attn_out"].shape == (2, 3, 192)


def test_a_name_stands_for_one_capture_whatever_the_steps(diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="record\\['resid_post'\\] is asked for twice"):
        dlens.trace(diffusion).capture("resid_post", steps=[0]).capture("resid_post", steps=[1])


def test_measures_of_inner_points_follow_the_rules_of_captures(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).measure(Inner())
    assert trace.forward([[5, 6]]).measures["inner"]["n"].values.tolist() == [1] * 16
    for other in (trace.skip, trace.repeat):
        with pytest.raises(ValueError, match="cannot both hold"):
            other(3)  # type: ignore[operator]
    with pytest.raises(ValueError, match="has no pattern"):
        dlens.trace(diffusion).measure(Inner(point="pattern"))
    with pytest.raises(ValueError, match="reads 'logits'; expected points of a block"):
        dlens.trace(diffusion).measure(Inner(point="logits"))

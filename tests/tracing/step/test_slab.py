"""Measures get consecutive layers at once, whatever stands between the blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import pytest
import torch
import xarray as xr
from torch import Tensor

import dlens
from dlens.measures.base.measure import Measure, Span, Sums, Visit
from dlens.ops.base.target import Target
from dlens.tracing.planning.described import describe
from dlens.tracing.planning.measured import Measured
from dlens.tracing.planning.plan import Planned
from dlens.tracing.step import slab
from dlens.tracing.step.program import Active, MeasureGroup, Spot
from dlens.tracing.step.state import Group, forward_state
from tests.reference import block_outputs, fresh


@final
@dataclass(frozen=True, kw_only=True)
class Kept(Measure):
    """Keeps copies of everything, to look at."""

    points: tuple[str, ...] = ("resid_pre", "resid_post")  # pyright: ignore
    visits: list[tuple[range, dict[str, Tensor]]] = field(default_factory=list)
    skipped: list[Any] = field(default_factory=list)

    def start(self, span: Span) -> Sums:
        return {"n": torch.zeros(span.n_layers)}

    def update(self, sums: Sums, visit: Visit) -> None:
        sums["n"][visit.at] += 1
        self.visits.append((visit.layers, {point: value.clone() for point, value in visit.values.items()}))
        self.skipped.append(visit.skipped)
        assert visit.last == (visit.layers.stop == len(sums["n"]))

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        return xr.Dataset({"n": ("layer", sums["n"].numpy())})

    def layers(self, point: str) -> Tensor:
        """[layer, batch, position, d_model] of one step."""
        return torch.cat([values[point] for _, values in self.visits])


IDS = torch.arange(8, 40)[None]


def plain_stream(model: dlens.Model) -> Tensor:
    """[layer + 1, batch, position, d_model] of a forward that nothing reads but a hook."""
    module = fresh(model.module)
    with torch.no_grad(), block_outputs(module) as outputs:
        module(input_ids=IDS, use_cache=False)
    return torch.stack([model.embed(IDS).detach(), *outputs])


def test_a_forward_comes_as_one_visit(diffusion: dlens.Model) -> None:
    kept = Kept()
    dlens.trace(diffusion).measure(kept).forward(IDS)
    stream = plain_stream(diffusion)
    assert [layers for layers, _ in kept.visits] == [range(diffusion.n_layers)]
    assert torch.equal(kept.layers("resid_pre"), stream[:-1])
    assert torch.equal(kept.layers("resid_post"), stream[1:])


@pytest.mark.parametrize("points", [("resid_pre", "resid_post"), ("resid_post",), ("resid_pre", "mlp_out")])
def test_memory_is_limited_and_layers_come_in_several_visits(
    diffusion: dlens.Model, points: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = Kept(points=points), Kept(points=points)
    dlens.trace(diffusion).measure(whole).forward(IDS)
    stream = plain_stream(diffusion)
    monkeypatch.setattr(slab, "SLAB_BYTES", 5 * stream[0].nbytes)
    record = dlens.trace(diffusion).measure(parts).forward(IDS)
    assert [layers for layers, _ in parts.visits] == [range(0, 5), range(5, 10), range(10, 15), range(15, 16)]
    for point in points:
        assert torch.equal(parts.layers(point), whole.layers(point))
    assert (record.measures["kept"].n == 1).all()


def test_a_write_between_two_blocks_is_seen_by_the_right_layers(diffusion: dlens.Model) -> None:
    before, after = Kept(name="before"), Kept(name="after")
    trace = dlens.trace(diffusion).measure(before)
    trace = trace.hook("blocks.6.hook_resid_post", lambda value, hook: value * 2).measure(after)
    captured = trace.capture("resid_pre", "resid_post").forward(IDS)
    pre, post = captured["resid_pre"], captured["resid_post"]
    assert torch.equal(after.layers("resid_pre"), pre) and torch.equal(after.layers("resid_post"), post)
    assert torch.equal(before.layers("resid_pre"), pre)
    post[6] /= 2
    assert torch.equal(before.layers("resid_post"), post)
    assert [layers for layers, _ in before.visits] == [range(0, 7), range(7, 16)]
    assert [layers for layers, _ in after.visits] == [range(0, 16)]


def double(block: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
    args[0].mul_(2)


def test_a_write_in_place_outside_of_dlens_is_seen(diffusion: dlens.Model) -> None:
    kept = Kept()
    handle = diffusion.blocks[3].register_forward_pre_hook(double)
    try:
        dlens.trace(diffusion).measure(kept).forward(IDS)
    finally:
        handle.remove()
    pre, post = kept.layers("resid_pre"), kept.layers("resid_post")
    assert torch.equal(pre[3], 2 * post[2])
    assert torch.equal(pre[4:], post[3:-1])


def test_skipped_blocks_are_named(diffusion: dlens.Model) -> None:
    kept = Kept()
    dlens.trace(diffusion).skip([2, 15]).measure(kept).forward(IDS)
    (skipped,) = kept.skipped
    assert skipped.nonzero()[:, 0].tolist() == [2, 15]
    assert torch.equal(kept.layers("resid_pre")[[2, 15]], kept.layers("resid_post")[[2, 15]])


def test_a_number_type_that_changes_on_the_way_loses_nothing() -> None:
    kept = Kept()
    said = describe(Measured(measure=kept), Target("tiny", 2, 3, False))
    group = MeasureGroup((Active(Planned(0, said, frozenset({0}), None), None),))
    real = torch.ones(2, 3, dtype=torch.bool)
    state = forward_state(Group((0, 1), 0), real, ~real, has_noise=False)
    sums = kept.start(Span(1, 2, 4, False, real.device))
    copies = slab.Slab(group, 2, real.device, lambda _group, visit: kept.update(sums, visit))
    stream = [torch.randn(2, 3, 4).to(dtype) for dtype in (torch.bfloat16, torch.bfloat16, torch.float32)]
    for layer in range(2):
        copies.put(stream[layer], Spot("resid_pre", layer, state))
        copies.put(stream[layer + 1], Spot("resid_post", layer, state))
        copies.close(None)
    for point, expected in (("resid_pre", stream[:-1]), ("resid_post", stream[1:])):
        assert torch.equal(kept.layers(point), torch.stack([value.float() for value in expected]))

"""One place at one step: what is read, written, skipped or run again there, in the order of the forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import POINTS, Half, Part, Resid
from dlens.models.family import Layout, Site, hidden_in, hidden_of
from dlens.models.inner import by_head, norm_scale
from dlens.models.model import Model
from dlens.models.wrapper import envoy_at
from dlens.tracing.step.hand import Hand
from dlens.tracing.step.program import Active, LayerProgram, Rows, Spot
from dlens.tracing.step.state import StepState

__all__ = ["BlockWalk", "read_site", "write_site"]

_PROJECTIONS = ("q", "k", "v")


@final
class BlockWalk:
    """One place at one step, walked from what enters its block to what leaves it.

    Args:
        model: whose layout says where points are.
        envoys: nnsight's view of every block, in their own order.
        hand: applies what acts at a point.
        layer: the place.
        block: which block runs there.
        todo: what happens there.
        state: what is known of the step.
    """

    def __init__(
        self,
        model: Model,
        envoys: tuple[Any, ...],
        hand: Hand,
        layer: int,
        block: int,
        todo: LayerProgram,
        state: StepState,
    ) -> None:
        self.model = model
        self.layout = model.layout.at(block)
        self.envoys = envoys
        self.hand = hand
        self.layer = layer
        self.envoy = envoys[block]
        self.todo = todo
        self.state = state

    def run(self) -> None:
        """Visit the block's points in the order of the forward, and feed the measures."""
        self._walk()
        rows = self.todo.skipped_rows(len(self.state.real)) if self.todo.groups else None
        skipped = None if rows is None else self.hand.flags(rows)
        for group in self.todo.groups:
            self.hand.collector.feed(group, skipped)

    def _walk(self) -> None:
        hidden, args, kwargs = self._input()
        if self._skipped("block"):
            assert hidden is not None
            out = self._apply("resid_post", hidden)
            self.envoy.skip(self.layout.pack(out))
            return
        self._half("attn", hidden)
        mid = self._middle()
        # The block adds the MLP to the middle it has kept, not to one that was written: that sum is made here.
        mlp = self._half("mlp", hidden, wanted=mid is not None)
        self._output(hidden, args, kwargs, mid, mlp)

    def _apply(self, point: str, value: Tensor) -> Tensor:
        return self.hand.apply(self.todo.points.get(point, []), value, Spot(point, self.layer, self.state))

    def _skipped(self, part: Part) -> bool:
        """Whether a part is skipped in every row."""
        return any(active.rows is None for active in self.todo.skips.get(part, ()))

    def _mixed(self, part: Part) -> list[Active]:
        """Skips of a part in which the rows disagree."""
        return [] if self._skipped(part) else self.todo.skips.get(part, [])

    def _input(self) -> tuple[Resid | None, tuple[Any, ...], dict[str, Any]]:
        todo = self.todo
        if not (todo.reads("resid_pre") or todo.skips or todo.runs or todo.other_blocks):
            return None, (), {}
        args, kwargs = self.envoy.inputs
        old = hidden_in(args, kwargs)
        hidden = self._apply("resid_pre", old)
        if hidden is not old:
            args, kwargs = _with_hidden(args, kwargs, hidden)
            self.envoy.inputs = (args, kwargs)
        return hidden, args, kwargs

    def _half(self, part: Half, hidden: Resid | None, wanted: bool = False) -> Resid | None:
        """Visit the points of a half; what it adds to the stream, where that was read or is `wanted`."""
        if self._skipped(part):
            self._fill(part, hidden)
            return None
        added, mixed = None, self._mixed(part)
        for point in _in_order(self.layout, part):
            last = point == f"{part}_out"
            if self.todo.reads(point) or last and (mixed or wanted):
                _, value = self._point(point, mixed if last else [])
                added = value if last else None
        return added

    def _middle(self) -> Resid | None:
        """The new middle of the stream where something wrote it, else None."""
        if not self.todo.reads("resid_mid"):
            return None
        old, new = self._point("resid_mid", [])
        return None if new is old else new

    def _fill(self, part: Half, hidden: Resid | None) -> None:
        assert hidden is not None
        for fill in self.layout.skips(part):
            envoy_at(self.envoy, fill.path).skip(fill.make(hidden, self.envoy._module))

    def _point(self, point: str, mixed: list[Active]) -> tuple[Tensor, Tensor]:
        """The value at a point within the block before and after all that acts there."""
        old = value = self._read(point)
        for active in mixed:
            value = torch.where(self._column(active.rows), torch.zeros_like(value), value)
        new = self._apply(point, value)
        if new is not old:
            self._write(point, old, new)
        return old, new

    def _read(self, point: str) -> Tensor:
        site, axes = self.layout.sites[point], POINTS[point].axes
        if axes[-1] == "scale":
            envoy = envoy_at(self.envoy, site.path)
            return site.split(norm_scale(envoy._module, envoy, envoy.input), positions=self.state.real.shape[-1])
        if point == "result":
            z = self.layout.sites["z"]
            return by_head(envoy_at(self.envoy, site.path), read_site(self.envoy, z, self.model.n_heads))
        n_heads = self.model.n_kv_heads if "kv_head" in axes else self.model.n_heads
        return read_site(self.envoy, site, n_heads, self.state.real.shape[-1])

    def _write(self, point: str, old: Tensor, new: Tensor) -> None:
        site = self.layout.sites[point]
        if point == "result":
            # The sum of all heads in another order would not be what the model computes; a difference of 0 is.
            whole = envoy_at(self.envoy, site.path).output
            new = whole.detach() + (new - old.detach()).sum(2)
        write_site(self.envoy, site, new)

    def _output(self, hidden: Resid | None, args: Any, kwargs: Any, mid: Resid | None, mlp: Resid | None) -> None:
        todo = self.todo
        mixed = self._mixed("block")
        measured = todo.groups and todo.in_kernel  # measures are fed once attention is over
        if not (todo.reads("resid_post") or mid is not None or todo.runs or todo.other_blocks or mixed or measured):
            return
        returned = self.envoy.output
        old = out = hidden_of(returned)
        if mid is not None:
            out = mid if mlp is None else mid + mlp
        out = self._rerun(out, args, kwargs)
        for active in mixed:
            assert hidden is not None
            out = torch.where(self._column(active.rows), hidden, out)
        out = self._apply("resid_post", out)
        if out is not old:
            self.envoy.output = (out, *returned[1:]) if isinstance(returned, tuple) else out

    def _rerun(self, out: Resid, args: Any, kwargs: Any) -> Resid:
        """Other blocks for the rows that want them, and further runs of this one; a direct call is not traced."""
        for block, rows in self.todo.other_blocks:
            other = hidden_of(self.envoys[block](*args, **kwargs))
            out = torch.where(self._column(rows), other, out)
        for times, rows in self.todo.runs:
            again = out
            for _ in range(times - 1):
                more_args, more_kwargs = _with_hidden(args, kwargs, again)
                again = hidden_of(self.envoy(*more_args, **more_kwargs))
            out = again if rows is None else torch.where(self._column(rows), again, out)
        return out

    def _column(self, rows: Rows) -> Tensor:
        return self.hand.column(rows, self.state.halves)


def _in_order(layout: Layout, part: Half) -> Iterator[str]:
    """The points of a half as the block computes them: its projections in the order in which the layout has them."""
    projections = iter(sorted(_PROJECTIONS, key=[*layout.sites, *_PROJECTIONS].index))
    for point in POINTS.values():
        if point.where == part and not point.kernel:
            yield next(projections) if point.name in _PROJECTIONS else point.name


def _with_hidden(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Resid) -> tuple[Any, dict[str, Any]]:
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}


def read_site(parent: Any, site: Site, n_heads: int = 1, positions: int | None = None) -> Tensor:
    """The value at a site below an envoy, with the axes of its hook point."""
    return site.split(_whole(envoy_at(parent, site.path), site), n_heads, positions)


def write_site(parent: Any, site: Site, value: Tensor) -> None:
    """Replace the value at a site below an envoy."""
    envoy = envoy_at(parent, site.path)
    value = site.join(value, _whole(envoy, site))
    if site.end == "input":
        envoy.input = value
        return
    output = envoy.output
    if isinstance(output, tuple):
        value = (*output[: site.index], value, *output[site.index + 1 :])  # pyright: ignore
    envoy.output = value


def _whole(envoy: Any, site: Site) -> Tensor:
    """What the module has there."""
    if site.end == "input":
        return envoy.input
    output = envoy.output
    return output[site.index] if isinstance(output, tuple) else output

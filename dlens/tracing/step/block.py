"""One place at one step: what is read, written, skipped or run again there, in the order of the forward."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from dlens.axes import Resid
from dlens.models.family import Site, hidden_in, hidden_of
from dlens.models.model import Model
from dlens.ops.capture import Capture
from dlens.ops.op import Edit, Place
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Part
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.hooks import Reader
from dlens.tracing.step.program import Active, LayerProgram, Rows, View
from dlens.tracing.step.state import StepState, step_mask

__all__ = ["Hand", "LayerVisit", "read_site", "write_site"]


@final
class Hand:
    """Applies the operations at a point to its value.

    Args:
        collector: receives captures and what fired.
        reader: reads the blocks that are not visited, and looks away meanwhile.
    """

    def __init__(self, collector: Collector, reader: Reader) -> None:
        self.collector = collector
        self.reader = reader

    def apply(self, actives: Any, value: Tensor, point: str, layer: int | None, state: StepState) -> Tensor:
        """Apply what acts at a point, in the order written; measures are fed by the caller."""
        for active in actives:
            if isinstance(active.op, Capture):
                self.collector.capture(active, value, layer, state)
            elif isinstance(active.op, Edit):
                value = self._edit(active, active.op, value, point, layer, state)
        return value

    def _edit(self, active: Active, op: Edit, value: Tensor, point: str, layer: int | None, state: StepState) -> Tensor:
        mask = self._selected(active, op, state)
        self.collector.fire(active, mask)
        place = Place(
            point=point,
            layer=layer,
            step=state.step,
            noise=None if state.noise is None else state.noise * state.halves,
            masked=state.masked.repeat(state.halves, 1),
            rows=state.window.rows,
            columns=state.full_columns,
            halves=state.halves,
        )
        with self.reader.away():
            new = op.edit(value, place)
        if mask is None:
            return new
        mask = mask.repeat(state.halves, 1).to(value.device)
        shape = (mask.shape[0], *[1] * (value.ndim - 3), mask.shape[1], 1)
        return torch.where(mask.reshape(shape), new, value)

    def _selected(self, active: Active, op: Edit, state: StepState) -> Tensor | None:
        """[batch, position] where an edit acts; None for everywhere."""
        mask = step_mask(op.tokens, active.planned.fixed, state)
        if active.rows is None:
            return mask
        rows = _column(active.rows, 1, state.real.device)[..., 0]
        return rows.expand_as(state.real) if mask is None else mask & rows


@final
class LayerVisit:
    """One place at one step.

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
        self.layout = model.layout
        self.envoys = envoys
        self.hand = hand
        self.layer = layer
        self.envoy = envoys[block]
        self.todo = todo
        self.state = state

    def run(self) -> None:
        """Visit the block's points in the order of the forward, and feed the measures."""
        self._walk()
        rows = len(self.state.real)
        skipped = self.todo.skipped_rows(rows, self.state.real.device) if self.todo.views else None
        for view in self.todo.views:
            self.hand.collector.feed(view, skipped)

    def _walk(self) -> None:
        hidden, args, kwargs = self._input()
        if self._skipped("block"):
            assert hidden is not None
            out = self._apply("resid_post", hidden)
            self.envoy.skip(self.layout.pack(out))
            return
        self._attention(hidden)
        mid = self._middle()
        mlp = self._mlp(hidden, mid)
        self._output(hidden, args, kwargs, mid, mlp)

    def _apply(self, point: str, value: Tensor) -> Tensor:
        actives = self.todo.points.get(point, ())
        for active in actives:
            if isinstance(active, View):
                self.hand.collector.read(active, point, self.layer, value, self.state)
            else:
                value = self.hand.apply((active,), value, point, self.layer, self.state)
        return value

    def _skipped(self, part: Part) -> bool:
        """Whether a part is skipped in every row."""
        return any(active.rows is None for active in self.todo.skips.get(part, ()))

    def _mixed(self, part: Part) -> list[Active]:
        """Skips of a part in which the rows disagree."""
        return [] if self._skipped(part) else self.todo.skips.get(part, [])

    def _input(self) -> tuple[Resid | None, tuple[Any, ...], dict[str, Any]]:
        todo = self.todo
        if not (todo.reads("resid_pre") or todo.skips or todo.repeats or todo.other_blocks):
            return None, (), {}
        args, kwargs = self.envoy.inputs
        old = hidden_in(args, kwargs)
        hidden = self._apply("resid_pre", old)
        if hidden is not old:
            args, kwargs = _with_hidden(args, kwargs, hidden)
            self.envoy.inputs = (args, kwargs)
        return hidden, args, kwargs

    def _attention(self, hidden: Resid | None) -> None:
        if self._skipped("attn"):
            self._fill(self.layout.attn_skip, hidden)
            return
        if self.todo.reads("pattern"):
            self._point("pattern")
        mixed = self._mixed("attn")
        if self.todo.reads("attn_out") or mixed:
            self._point("attn_out", mixed)

    def _middle(self) -> Resid | None:
        """The new middle of the stream where something wrote it, else None."""
        if not self.todo.reads("resid_mid"):
            return None
        old, new = self._point("resid_mid")
        return None if new is old else new

    def _mlp(self, hidden: Resid | None, mid: Resid | None) -> Resid | None:
        if self._skipped("mlp"):
            self._fill(self.layout.mlp_skip, hidden)
            return None
        mixed = self._mixed("mlp")
        if not (self.todo.reads("mlp_out") or mixed or mid is not None):
            return None
        _, new = self._point("mlp_out", mixed)
        return new

    def _fill(self, fills: Any, hidden: Resid | None) -> None:
        assert hidden is not None
        for fill in fills:
            self.envoy.get(fill.path).skip(fill.make(hidden, self.envoy._module))

    def _point(self, point: str, mixed: list[Active] | None = None) -> tuple[Tensor, Tensor]:
        site = self.layout.sites[point]
        old = value = read_site(self.envoy, site)
        for active in mixed or ():
            value = torch.where(self._column(active.rows), torch.zeros_like(value), value)
        new = self._apply(point, value)
        if new is not old:
            write_site(self.envoy, site, new)
        return old, new

    def _output(self, hidden: Resid | None, args: Any, kwargs: Any, mid: Resid | None, mlp: Resid | None) -> None:
        todo = self.todo
        mixed = self._mixed("block")
        if not (todo.reads("resid_post") or mid is not None or todo.repeats or todo.other_blocks or mixed):
            return
        returned = self.envoy.output
        old = out = hidden_of(returned)
        if mid is not None:
            # The block added the MLP to the middle it had kept, not to the one written.
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
        for active in self.todo.repeats:
            assert isinstance(active.op, Repeat)
            again = out
            for _ in range(active.op.times - 1):
                more_args, more_kwargs = _with_hidden(args, kwargs, again)
                again = hidden_of(self.envoy(*more_args, **more_kwargs))
            out = again if active.rows is None else torch.where(self._column(active.rows), again, out)
        return out

    def _column(self, rows: Rows) -> Tensor:
        return _column(rows or (True,), self.state.halves, self.state.real.device)


def _column(rows: tuple[bool, ...], halves: int, device: torch.device) -> Tensor:
    """Per row a flag that broadcasts over [batch, position, d_model]."""
    return torch.tensor(rows * halves, device=device)[:, None, None]


def _with_hidden(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Resid) -> tuple[Any, dict[str, Any]]:
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}


def read_site(parent: Any, site: Site) -> Tensor:
    """The value at a site below an envoy."""
    envoy = parent.get(site.path)
    if site.end == "input":
        return envoy.input
    output = envoy.output
    return output[site.index] if isinstance(output, tuple) else output


def write_site(parent: Any, site: Site, value: Tensor) -> None:
    """Replace the value at a site below an envoy."""
    envoy = parent.get(site.path)
    if site.end == "input":
        envoy.input = value
        return
    output = envoy.output
    if isinstance(output, tuple):
        value = (*output[: site.index], value, *output[site.index + 1 :])  # pyright: ignore
    envoy.output = value

"""Where nnsight runs a plan: the only place that opens a trace.

One trace spans the whole run. A worker walks beside the model; each step is anchored on the root
module's inputs, and inside a step places are visited in the order in which the forward reaches
them, whatever order the operations were written in.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from dlens.axes import Resid
from dlens.models.family import Site
from dlens.models.model import Model
from dlens.models.wrapper import resting
from dlens.ops.capture import Capture
from dlens.ops.op import INNER_POINTS, Edit, Op, Place, Target
from dlens.ops.repeat import Repeat
from dlens.ops.skip import Part, Skip
from dlens.tracing.collect import Collector
from dlens.tracing.plan import Measured, Plan
from dlens.tracing.program import Active, LayerProgram, Rows, StepProgram, active_at, compile_step, reads_block
from dlens.tracing.reading import Reader
from dlens.tracing.state import StepState
from dlens.tracing.tokens import step_mask

__all__ = ["ActivesOf", "StateOf", "run_plan"]

T = TypeVar("T")

StateOf = Callable[[int, tuple[Any, ...], dict[str, Any]], StepState]
"""From the step number and the root module's arguments, what is known of the step."""

ActivesOf = Callable[[StepState], tuple[Active, ...]]
"""From what is known of a step, the operations that act at it."""

_RUNNING: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def run_plan(
    model: Model,
    target: Target,
    plan: Plan,
    collector: Collector,
    state_of: StateOf,
    drive: Callable[[], T],
    actives_of: ActivesOf | None = None,
) -> T:
    """Run `drive`, which calls the module once a step, with the plan applied.

    Args:
        model: whose module `drive` calls.
        target: facts of the model.
        plan: operations fitted to the run.
        collector: receives captures, measures and what fired.
        state_of: what is known of a step when it starts.
        drive: the run itself: one forward, a sampler, or a call of `generate`.
        actives_of: what acts at a step; None asks the scopes of the plan.

    Returns:
        What `drive` returned. The module is as it was, also after an error.

    Raises:
        RuntimeError: the module is running already, that is, a function called by its run calls this.
    """
    with _alone(model):
        if not plan.planned:
            with torch.no_grad(), resting(model.module, ()):
                return drive()
        return _run(model, target, plan, collector, state_of, drive, actives_of or partial(active_at, plan))


@contextmanager
def _alone(model: Model) -> Iterator[None]:
    """Refuse a run inside a run: the module's calls would count as steps of the outer one."""
    if model.module in _RUNNING:
        raise RuntimeError(
            f"{model.name} is running already in this thread; expected one run at a time; "
            f"call dlens outside of hook and on_step functions, and keep what they need in a variable"
        )
    _RUNNING.add(model.module)
    try:
        yield
    finally:
        _RUNNING.discard(model.module)


def _run(
    model: Model,
    target: Target,
    plan: Plan,
    collector: Collector,
    state_of: StateOf,
    drive: Callable[[], T],
    actives_of: ActivesOf,
) -> T:
    root = model.nnsight
    result: list[T] = []
    blocks = dict(model.blocks._modules)
    walker = _Walker(model, root, target, collector, actives_of)
    try:
        with resting(model.module, _visited(model, plan)), walker.reader.hooked():
            _trace(root, lambda: result.append(drive()), lambda *seen: walker(state_of(*seen)))
    finally:
        model.blocks._modules.update(blocks)
    return result[0]


def _visited(model: Model, plan: Plan) -> set[nn.Module]:
    """The parts of a model where a plan may read, write or skip."""
    layout = model.layout
    visited = {model.module, model.embed}
    if not all(reads_block(planned.op) for planned in plan.planned):
        visited.update(model.blocks)
    if any(_goes_inside(planned.op) for planned in plan.planned):
        paths = {part.path for part in (*layout.sites.values(), *layout.attn_skip, *layout.mlp_skip)}
        visited.update(block.get_submodule(path) for block in model.blocks for path in paths)
    return visited


def _goes_inside(op: Op) -> bool:
    """Whether an operation may touch what lies between a block's input and its output."""
    if isinstance(op, Skip):
        return op.part != "block"
    if isinstance(op, Measured):
        return not set(op.measure.points).isdisjoint(INNER_POINTS)
    point = op.point if isinstance(op, Capture) else op.at if isinstance(op, Edit) else None
    return point in INNER_POINTS


def _trace(root: Any, drive: Callable[[], None], visit: Callable[[int, tuple, dict], None]) -> None:
    with torch.no_grad(), root.trace(fn=drive) as tracer:
        with tracer.invoke():
            _walk(root, tracer, visit)


def _walk(root: Any, tracer: Any, visit: Callable[[int, tuple, dict], None]) -> None:
    from nnsight.intervention.interleaver import OutOfOrderError

    for step in tracer.iter[:]:
        try:
            args, kwargs = root.inputs
        except OutOfOrderError:  # the run is over
            return
        visit(step, args, kwargs)


@final
class _Walker:
    """Visits the places of one step after the other."""

    def __init__(self, model: Model, root: Any, target: Target, collector: Collector, actives_of: ActivesOf) -> None:
        self.model = model
        self.layout = model.layout
        self.target = target
        self.collector = collector
        self.reader = Reader(model, collector)
        self.actives_of = actives_of
        self.root = root
        self.modules = tuple(model.blocks)
        container = self.root.get(model.layout.blocks)
        self.envoys = tuple(container[i] for i in range(len(self.modules)))
        self.programs: dict[Any, StepProgram] = {}

    def __call__(self, state: StepState) -> None:
        program = self._program(state)
        self._order_blocks(program.blocks)
        self.collector.begin(state, program)
        self.reader.begin(state, program)
        if program.embed:
            self._site(self.root, Site(self.layout.embed), "embed", None, program.embed, state)
        for layer in sorted(program.layers.keys() - program.quiet):
            self._layer(layer, program, state)
        if program.logits:
            self._logits(program.logits, state)

    def _program(self, state: StepState) -> StepProgram:
        actives = self.actives_of(state)
        key = tuple((active.planned.index, active.rows) for active in actives)
        if key not in self.programs:
            self.programs[key] = compile_step(actives, self.target)
        return self.programs[key]

    def _order_blocks(self, order: tuple[int, ...]) -> None:
        """Put the blocks into the order of this step, before the forward walks over them."""
        slots = self.model.blocks._modules
        for place, block in enumerate(order):
            slots[str(place)] = self.modules[block]

    def _layer(self, layer: int, program: StepProgram, state: StepState) -> None:
        todo = program.layers[layer]
        block = program.blocks[layer]
        visit = _LayerVisit(self, layer, block, todo, state)
        visit.run()
        for active in todo.measures:
            assert isinstance(active.op, Measured)
            skipped = todo.skipped_rows(len(state.real), state.real.device)
            self.collector.measure(active, layer, visit.seen[active.planned.index], skipped, state)

    def _logits(self, actives: tuple[Active, ...], state: StepState) -> None:
        output = self.root.output
        value = output.logits
        new = self.apply(actives, value, "logits", None, state)
        if new is not value:
            output.logits = new
            self.root.output = output

    def _site(
        self, parent: Any, site: Site, point: str, layer: int | None, actives: Any, state: StepState
    ) -> tuple[Tensor, Tensor]:
        """Read a site, apply what acts there, write it back if it changed; old and new value."""
        old = read_site(parent, site)
        new = self.apply(actives, old, point, layer, state)
        if new is not old:
            write_site(parent, site, new)
        return old, new

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
            noise=state.noise,
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
class _LayerVisit:
    """One place at one step."""

    def __init__(self, walker: _Walker, layer: int, block: int, todo: LayerProgram, state: StepState) -> None:
        self.walker = walker
        self.layer = layer
        self.envoy = walker.envoys[block]
        self.module = walker.modules[block]
        self.todo = todo
        self.state = state
        self.seen: dict[int, dict[str, Tensor]] = {a.planned.index: {} for a in todo.measures}

    def run(self) -> None:
        """Visit the block's points in the order of the forward."""
        hidden, args, kwargs = self._input()
        if self._skipped("block"):
            assert hidden is not None
            out = self._apply("resid_post", hidden)
            self.envoy.skip(self.walker.layout.pack(out))
            return
        self._attention(hidden)
        mid = self._middle()
        mlp = self._mlp(hidden, mid)
        self._output(hidden, args, kwargs, mid, mlp)

    def _apply(self, point: str, value: Tensor) -> Tensor:
        actives = self.todo.points.get(point, ())
        for active in actives:
            if isinstance(active.op, Measured):
                half = value[: len(value) // self.state.halves] if self.state.halves > 1 else value
                self.seen[active.planned.index][point] = half
            else:
                value = self.walker.apply((active,), value, point, self.layer, self.state)
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
        old = args[0] if args else kwargs["hidden_states"]
        hidden = self._apply("resid_pre", old)
        if hidden is not old:
            args, kwargs = _with_hidden(args, kwargs, hidden)
            self.envoy.inputs = (args, kwargs)
        return hidden, args, kwargs

    def _attention(self, hidden: Resid | None) -> None:
        if self._skipped("attn"):
            self._fill(self.walker.layout.attn_skip, hidden)
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
            self._fill(self.walker.layout.mlp_skip, hidden)
            return None
        mixed = self._mixed("mlp")
        if not (self.todo.reads("mlp_out") or mixed or mid is not None):
            return None
        _, new = self._point("mlp_out", mixed)
        return new

    def _fill(self, fills: Any, hidden: Resid | None) -> None:
        assert hidden is not None
        for fill in fills:
            self.envoy.get(fill.path).skip(fill.make(hidden, self.module))

    def _point(self, point: str, mixed: list[Active] | None = None) -> tuple[Tensor, Tensor]:
        site = self.walker.layout.sites[point]
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
        old = out = _hidden_of(returned)
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
            other = _hidden_of(self.walker.envoys[block](*args, **kwargs))
            out = torch.where(self._column(rows), other, out)
        for active in self.todo.repeats:
            assert isinstance(active.op, Repeat)
            again = out
            for _ in range(active.op.times - 1):
                more_args, more_kwargs = _with_hidden(args, kwargs, again)
                again = _hidden_of(self.envoy(*more_args, **more_kwargs))
            out = again if active.rows is None else torch.where(self._column(active.rows), again, out)
        return out

    def _column(self, rows: Rows) -> Tensor:
        return _column(rows or (True,), self.state.halves, self.state.real.device)


def _column(rows: tuple[bool, ...], halves: int, device: torch.device) -> Tensor:
    """Per row a flag that broadcasts over [batch, position, d_model]."""
    return torch.tensor(rows * halves, device=device)[:, None, None]


def _hidden_of(returned: Any) -> Resid:
    return returned[0] if isinstance(returned, tuple) else returned


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

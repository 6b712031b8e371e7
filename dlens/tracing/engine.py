"""Where nnsight runs a plan: the only place that opens a trace.

One trace spans the whole run. A worker walks beside the model; each step is anchored on the root
module's inputs, and inside a step places are visited in the order in which the forward reaches
them, whatever order the operations were written in. A plan that only reads around blocks needs no
worker: hooks of PyTorch read there, and the module's forward says that a step starts.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from itertools import count
from typing import Any, TypeVar, final

import torch
from torch import nn

from dlens.axes import HALVES, POINTS
from dlens.models.family import Layout, Site
from dlens.models.inner import norm_scale
from dlens.models.model import Model
from dlens.models.wrapper import envoy_at, resting
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import Plan, Planned
from dlens.tracing.step.block import BlockWalk, read_site, write_site
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.compile import active_at, compile_step
from dlens.tracing.step.hand import Hand
from dlens.tracing.step.hooks import Reader
from dlens.tracing.step.kernel import KernelWalk
from dlens.tracing.step.program import Active, Spot, StepProgram, around_blocks
from dlens.tracing.step.state import StepState
from dlens.tracing.step.tape import Tape, cut

__all__ = ["ActivesOf", "StateOf", "call_within", "run_plan"]

T = TypeVar("T")

StateOf = Callable[[int, tuple[Any, ...], dict[str, Any]], StepState]
"""From the step number and the root module's arguments, what is known of the step."""

ActivesOf = Callable[[StepState], tuple[Active, ...]]
"""From what is known of a step, the operations that act at it."""

_RUNNING: weakref.WeakSet[nn.Module] = weakref.WeakSet()
# Most programs that are kept: a stream of forwards that names positions or noise has one of its own for every batch.
_PROGRAMS = 256


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
    root = model.root
    result: list[T] = []
    blocks = dict(model.blocks._modules)
    walker = _Walker(model, root, target, collector, actives_of)
    try:
        visited = _visited(model, plan)
        with resting(model.module, visited), walker.hooked(), _guarded(model, visited):
            observed = _observe if all(map(around_blocks, plan.planned)) else _trace
            observed(root, lambda: result.append(drive()), lambda *seen: walker(state_of(*seen), *seen[1:]))
    finally:
        model.blocks._modules.update(blocks)
    return result[0]


@contextmanager
def _guarded(model: Model, visited: set[nn.Module]) -> Iterator[None]:
    """Refuse calls of another thread as long as a run lasts: they would count as its steps, and read its changes."""
    owner = threading.get_ident()

    def check(part: nn.Module, args: Any) -> None:
        if threading.get_ident() != owner:
            raise RuntimeError(
                f"{model.name} was called while another thread runs a trace of it; expected calls of that run alone, "
                f"as both would come out wrong; call it through dlens, which waits, or within 'with model.lock:'"
            )

    with ExitStack() as stack:
        for part in visited.union(model.blocks):
            stack.callback(part.register_forward_pre_hook(check, prepend=True).remove)
        yield


def _visited(model: Model, plan: Plan) -> set[nn.Module]:
    """The parts of a model where a plan may read, write or skip."""
    visited = {model.module, model.embed}
    if plan.touches("ln_final_scale"):
        visited.add(model.module.get_submodule(_norm(model)))
    if not all(around_blocks(planned) for planned in plan.planned):
        visited.update(model.blocks)
    for index, block in enumerate(model.blocks):
        paths = {path for planned in plan.planned for path in _paths(model.layout.at(index), planned)}
        visited.update(block.get_submodule(path) for path in paths)
    return visited


def _norm(model: Model) -> str:
    """The final norm of a model that has one, as whatever reads its scale was told."""
    assert model.layout.norm is not None
    return model.layout.norm


def _paths(layout: Layout, planned: Planned) -> Iterator[str]:
    """The modules within a block that an operation touches or does not run."""
    skipped = set(planned.structure.skips.values())
    for part in HALVES:
        if part not in skipped:
            continue
        yield from (fill.path for fill in layout.skips(part))
        yield from (site.path for point, site in layout.sites.items() if point == f"{part}_out")
    inner = {touch.point for touch in planned.touches if POINTS[touch.point].inner and not POINTS[touch.point].kernel}
    yield from (layout.sites[point].path for point in inner)
    if "resid_mid" in inner:
        yield layout.sites["mlp_out"].path


def _observe(root: Any, drive: Callable[[], None], visit: Callable[[int, tuple, dict], None]) -> None:
    """Run without a trace, where no step is visited beyond its start."""
    steps = count()
    with torch.no_grad(), _entered(root._module, lambda *given: visit(next(steps), *given)):
        drive()


def _trace(root: Any, drive: Callable[[], None], visit: Callable[[int, tuple, dict], None]) -> None:
    with torch.no_grad(), _entered(root._module), root.trace(fn=drive) as tracer:
        with tracer.invoke():
            _walk(root, tracer, visit)


def call_within() -> RuntimeError:
    """What is raised where the module is called within its own forward: places would be read in the inner one."""
    return RuntimeError(
        "the module was called within a forward of a run, by a function that the forward calls; expected calls by the "
        "run alone; keep what the function needs in a variable, or call a copy of the model"
    )


@contextmanager
def _entered(module: nn.Module, begin: Callable[[tuple, dict], None] | None = None) -> Iterator[None]:
    """Be told of each forward of a module, called as it may be, and refuse one within another.

    Args:
        begin: gets the arguments, before the forward has them.
    """
    own, beneath, busy = vars(module), module.forward, False
    stood = "forward" in own

    @wraps(beneath)
    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal busy
        if busy:
            raise call_within()
        busy = True
        try:
            if begin is not None:
                begin(args, kwargs)
            return beneath(*args, **kwargs)
        finally:
            busy = False

    own["forward"] = forward
    try:
        yield
    finally:
        if stood:
            own["forward"] = beneath
        else:
            del own["forward"]


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
        self.target = target
        self.collector = collector
        self.reader = Reader(model, collector)
        self.tape = Tape(model, collector.plan, collector)
        self.hand = Hand(collector, self.reader, self.tape)
        self.kernel = KernelWalk(model, collector.plan, self.hand)
        self.actives_of = actives_of
        self.root = root
        self.modules = tuple(model.blocks)
        container = envoy_at(self.root, model.layout.blocks)
        self.envoys = tuple(container[i] for i in range(len(self.modules)))
        self.programs: dict[Any, StepProgram] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Keep what the forward calls by itself in place as long as a run lasts."""
        with self.reader.hooked(), self.kernel.opened(), self.tape.open():
            yield

    def __call__(self, state: StepState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        program = self._program(state)
        self._order_blocks(program.blocks)
        self.collector.begin(state, program, args, kwargs)
        self.reader.begin(state, program)
        self.kernel.begin(state, program)
        self.tape.begin(args, kwargs)
        self._embed(program, state)
        for layer in sorted(program.layers.keys() - program.quiet):
            self._layer(layer, program, state)
        self._final_norm(program, state)
        self._logits(program, state)

    def _program(self, state: StepState) -> StepProgram:
        actives = self.actives_of(state)
        key = tuple((active.planned, active.rows) for active in actives)
        if key not in self.programs:
            if len(self.programs) == _PROGRAMS:
                self.programs.clear()
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
        BlockWalk(self.model, self.envoys, self.hand, layer, block, todo, state).run()

    def _embed(self, program: StepProgram, state: StepState) -> None:
        if "embed" not in program.root:
            return
        site = Site(self.model.layout.embed)
        value = read_site(self.root, site)
        new = self.hand.apply(program.root["embed"], value, Spot("embed", None, state))
        if new is not value:
            write_site(self.root, site, new)

    def _final_norm(self, program: StepProgram, state: StepState) -> None:
        if "ln_final_scale" in program.root:
            norm = envoy_at(self.root, _norm(self.model))
            value = norm_scale(norm._module, norm, norm.input)
            self.hand.apply(program.root["ln_final_scale"], value, Spot("ln_final_scale", None, state))

    def _logits(self, program: StepProgram, state: StepState) -> None:
        if "logits" not in program.root and self.tape.metric is None:
            return
        output = self.root.output
        value = output.logits
        new = self.hand.apply(program.root.get("logits", []), value, Spot("logits", None, state))
        if new is not value:
            output.logits = new
        if self.tape.metric is not None:
            self.tape.close(new, state)
            output = cut(output)
        self.root.output = output

"""Make a run ready: the facts of its model, every check, and what is found before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from dlens.axes import HALVES, INNER_POINTS, POINTS, TokenIds, TokenMask
from dlens.models.families.fitting import takes
from dlens.models.identity import outline, parts_of
from dlens.models.model import Model
from dlens.models.proofs.sites import point_widths
from dlens.ops.base.op import Op
from dlens.ops.base.target import RunShape, Target
from dlens.tracing.engine import ActivesOf, StateOf, run_plan
from dlens.tracing.planning.captures import capture_bytes, refuse_large_captures
from dlens.tracing.planning.described import describe
from dlens.tracing.planning.inputs import Batch
from dlens.tracing.planning.plan import Plan, Planned, plan_run
from dlens.tracing.probes.outlier import Calibrated
from dlens.tracing.probes.unembed import readout_for
from dlens.tracing.step.collect import Collector
from dlens.tracing.step.gather import Gather
from dlens.tracing.step.state import Group

__all__ = ["Prepared", "check_plan", "check_run", "groups", "prepare", "refuse_training", "target_of"]

T = TypeVar("T")


def target_of(model: Model) -> Target:
    """The facts of a model that operations are checked against."""
    absent = dict(model.layout.absent)
    for point in INNER_POINTS:
        if point not in model.layout.sites and not POINTS[point].kernel:
            absent.setdefault(point, "no module of this architecture holds it")
    return Target(
        name=model.name,
        n_layers=model.n_layers,
        d_model=model.d_model,
        has_noise=model.family.objective == "diffusion",
        n_heads=model.n_heads,
        n_kv_heads=model.n_kv_heads,
        absent=absent,
        attention_types=model.attention_types,
        whole=tuple(part for part in HALVES if not all(own.skips(part) for own in model.layout.each)),
        widths=point_widths(model),
        hands_on=_hands_on(model),
        needed=model.layout.needed,
    )


def _hands_on(model: Model) -> bool:
    """Whether blocks return more than the stream and no cache beside them holds it, or one of its own kind does."""
    if takes(model.module, "past_key_values"):
        usual: Any = getattr(model.module, "_supports_default_dynamic_cache", None)
        return usual is not None and not usual()
    return any(layout.block_tuple not in (None, 1) for layout in model.layout.each)


@dataclass(frozen=True)
class Prepared:
    """A run that passed all checks.

    Args:
        model, target: what runs.
        ops: the chain with outlier channels and means filled in, for the record.
        plan: the operations as the engine runs them.
        collector: what the run will keep.
    """

    model: Model
    target: Target
    ops: tuple[Op, ...]
    plan: Plan
    collector: Collector

    def run(self, state_of: StateOf, drive: Callable[[], T], actives_of: ActivesOf | None = None) -> T:
        """Run one group."""
        found = run_plan(self.model, self.target, self.plan, self.collector, state_of, drive, actives_of)
        # Now, as the device may still be at work; of several groups it is what stands after the last.
        self.collector.groups += 1
        self.collector.ran = outline(self.model.module) if self.collector.groups == 1 else None
        return found


def check_run(
    model: Model, target: Target, ops: Sequence[Op], shape: RunShape, real: TokenMask, capture_limit: int
) -> Plan:
    """Check a chain against a run, before the model computes anything.

    Args:
        real: [batch, position] over the whole run.
        capture_limit: most bytes that captures may take.

    Raises:
        ValueError, IndexError, MemoryError: says what does not fit.
    """
    refuse_training(model)
    return check_plan(model, target, ops, shape, real, capture_limit)


def refuse_training(model: Model) -> None:
    """Refuse a model in training mode.

    Raises:
        ValueError: names a part that varies from run to run.
    """
    if (training := _in_training(model.module)) is not None:
        raise ValueError(
            f"{model.name} is in training mode ({training}), where dropout makes every run differ; expected evaluation "
            f"mode; call model.module.eval()"
        )


def check_plan(
    model: Model, target: Target, ops: Sequence[Op], shape: RunShape, real: TokenMask, capture_limit: int
) -> Plan:
    """The part of `check_run` that hangs on the prompts: what a stream checks batch by batch."""
    plan = plan_run(ops, target, shape.n_steps, real)
    refuse_large_captures(capture_bytes(ops, model, target, shape), capture_limit)
    _refuse_uncomputed(plan, shape)
    for planned in plan.planned:
        planned.op.check_run(shape, planned.steps, real)
    return plan


def _in_training(module: nn.Module) -> str | None:
    """The part of a module that computes something else at each call, as it is in training mode; None without one."""
    if module.training:
        return "all of it"
    varying = next((part for part in parts_of(module) if part.training and _varies(part)), None)
    if varying is None:
        return None
    return next(name for name, part in module.named_modules() if part is varying)


def _varies(part: nn.Module) -> bool:
    """Whether training mode changes what a part computes: it drops values, or counts statistics."""
    drops = any("dropout" in name and value for name, value in vars(part).items() if isinstance(value, (int, float)))
    return drops or isinstance(part, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase))


def prepare(
    model: Model, target: Target, ops: Sequence[Op], shape: RunShape, plan: Plan, gather: Gather | None = None
) -> Prepared:
    """Find what a checked chain leaves open until its run starts; `gather` takes captures in the record's place."""
    calibration = Calibrated(model, target)
    filled = tuple(op.filled(calibration) for op in ops)
    found = (op.resolved(target) for op in filled)
    plan = replace(plan, planned=tuple(_said_by(op, p, target) for op, p in zip(found, plan.planned, strict=True)))
    collector = Collector(model, target, plan, shape, readout=readout_for(model, plan), gather=gather)
    collector.start()
    return Prepared(model, target, filled, plan, collector)


def _said_by(op: Op, planned: Planned, target: Target) -> Planned:
    """A planned operation as it is now that what it left open was found."""
    return planned if op is planned.op else replace(planned, said=describe(op, target))


def _refuse_uncomputed(plan: Plan, shape: RunShape) -> None:
    """Refuse a selection of the last token of AR decoding, which nothing computes."""
    for planned in plan.planned:
        if planned.fixed is None:
            continue
        computed, last = planned.fixed[:, : shape.width], planned.fixed[:, shape.width :]
        named = not isinstance(planned.op.selection(), (slice, Tensor))
        if last.any() and (named or not computed.any()):
            raise IndexError(
                f"'{planned.op.words()}' names the last token of the run; expected a position before it, as decoding "
                f"ends with a token that no step computes; use tokens='last' for the newest at each step, or -2"
            )


def groups(model: Model, batch: Batch, batch_size: int | None = None) -> Iterator[tuple[Group, TokenIds, TokenMask]]:
    """The parts in which a batch runs: all of it, or rows of equal length where padding is not honoured.

    Args:
        batch_size: most rows of a part; None is any number.
    """
    size = len(batch.ids) if batch_size is None else batch_size
    if size >= len(batch.ids) and (model.honours_padding or not batch.padded):
        yield Group(tuple(range(len(batch.ids))), 0), batch.ids, batch.real
        return
    lengths = batch.lengths
    alike = [range(len(lengths))]
    if not model.honours_padding:
        alike = [[row for row, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))]
    for rows in (tuple(some[at : at + size]) for some in alike for at in range(0, len(some), size)):
        offset = batch.ids.shape[-1] - max(lengths[row] for row in rows)
        yield Group(rows, offset), batch.ids[list(rows), offset:], batch.real[list(rows), offset:]

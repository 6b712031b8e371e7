"""A model with a plan applied, beside the same model as it is."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Any

from dlens.findings.scores.accuracy import Scores
from dlens.findings.skipping.skip_schedule import SkipSchedule
from dlens.ops.base.op import Op
from dlens.tracing.chain import Trace, trace
from dlens.tracing.records.record import Record

__all__ = ["applied", "blocks_saved", "flops_saved", "plan_notes", "skipped_blocks"]


def applied(model: Any, plan: Any) -> tuple[Trace, Trace]:
    """The model as it is, and with everything that is to be judged.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        plan: what is applied after those: a SkipPlan, a SkipSchedule, or layers; None is nothing.

    Raises:
        ValueError, IndexError: nothing is changed, or the model cannot do it.
    """
    _refuse_traces(plan)
    chain = model if isinstance(model, Trace) else trace(model)
    bare = replace(chain, ops=())
    if isinstance(plan, SkipSchedule):
        chain = plan.apply(chain)
    elif plan is not None:
        chain = chain.skip(plan)
    if not any(op.changes(chain.target) for op in chain.ops):
        raise ValueError(
            f"{chain.model.name} without a plan and without operations; expected something that changes it, as it is "
            f"compared with itself as it is; give a plan or layers to skip, or a trace with operations"
        )
    return bare, chain


def plan_notes(bare: Trace, plan: Any) -> tuple[str, ...]:
    """A note where a plan was made for another model than the one that it is applied to."""
    made_for = getattr(plan, "model", bare.model.name)
    if made_for == bare.model.name:
        return ()
    return (f"the plan was made for {made_for}, not for {bare.model.name}",)


def skipped_blocks(bare: Trace, plan: Any) -> tuple[int, ...]:
    """The places that a plan skips, at every step.

    Raises:
        ValueError, IndexError: a schedule, whose places change with the noise, or layers that the model lacks.
    """
    _refuse_traces(plan)
    if isinstance(plan, SkipSchedule):
        raise ValueError(
            f"a schedule for {plan.model}; expected the same blocks at every step, as they are skipped at chosen "
            f"points of a run; pass a SkipPlan or layers"
        )
    return tuple(bare.skip(plan).ops[-1].structure(bare.target).skips)


def _refuse_traces(plan: Any) -> None:
    if isinstance(plan, Trace):
        raise ValueError(
            f"plan got a trace of {plan.model.name}; expected a plan or layers to skip; pass the trace itself for the "
            f"model, with its operations"
        )


def blocks_saved(chain: Trace, n_steps: int) -> float:
    """Skipped blocks as a share of all, as papers on skipping count compute: heads and embeddings are left out.

    A block that is skipped at some steps or noise levels counts by their share of the planned
    steps, or of the noise from 1 to 0. NaN where another operation changes what is computed.

    Examples:
        >>> import dlens
        >>> blocks_saved(dlens.trace("trio/ar").skip([3, 5, 7]), 10)
        0.1875
    """
    shares = dict.fromkeys(range(chain.target.n_layers), 0.0)
    for op in chain.ops:
        structure = op.structure(chain.target)
        if structure.runs or set(structure.skips.values()) - {"block"}:
            return nan
        for layer in structure.skips:
            shares[layer] = min(1.0, shares[layer] + _share_of_run(op, n_steps))
    return sum(shares.values()) / len(shares)


def flops_saved(ran: Record | Scores) -> float:
    """Floating-point operations that were saved, as a share of those without operations; NaN where not counted.

    Examples:
        >>> import dlens
        >>> 0 < flops_saved(dlens.trace("trio/ar").skip([5]).forward("Once upon a time")) < 1 / 16
        True
    """
    if ran.flops is None or ran.saved_flops is None:
        return nan
    return ran.saved_flops / (ran.flops + ran.saved_flops)


def _share_of_run(op: Op, n_steps: int) -> float:
    lo, hi = op.scope.noise or (0.0, 1.0)
    return len(op.scope.resolve(n_steps)) / n_steps * (hi - lo)

"""Which blocks to skip at which noise level, from measured losses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from dlens.checks import as_flag
from dlens.findings.scores.canvases import Canvases, noise_canvases
from dlens.findings.scores.loss import losses_of
from dlens.findings.skipping.choosable import bare, choosable
from dlens.findings.skipping.scan import RemovalScan, removal_scan
from dlens.findings.skipping.skip_schedule import SkipSchedule, widths
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_number, as_seed
from dlens.tracing.chain import Trace

__all__ = ["noise_losses", "plan_schedule"]

# Sums of binary fractions such as 3 x 1/16 may miss a budget by a rounding.
_SLACK = 1e-9


@dataclass
class _Level:
    """One noise level while a schedule grows.

    Args:
        width: its share of the noise from 0 to 1.
        scan: the losses without each further block; None where it was not measured since the last choice.
        gone: what is skipped so far.
        losses: before anything was skipped, and after each block.
    """

    width: float
    scan: RemovalScan | None
    gone: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.scan is not None
        self.losses.append(self.scan.loss)

    @property
    def price(self) -> float:
        """What one more block adds to the loss; the width weighs loss and compute alike, so it cancels."""
        assert self.scan is not None
        return self.scan.increase(self.scan.least())

    def fits(self, left: float, n_layers: int, n_allowed: int) -> bool:
        """Whether one more block may go and is within what is left of the budget, in blocks."""
        return self.width <= left + _SLACK and not self.full(n_layers, n_allowed)

    def full(self, n_layers: int, n_allowed: int) -> bool:
        """Whether no further block may go."""
        return len(self.gone) == min(n_allowed, n_layers - 1)

    def take(self) -> float:
        """Skip the block that costs least; returns what that saves, in blocks."""
        assert self.scan is not None
        layer = self.scan.least()
        self.gone.append(layer)
        self.losses.append(self.scan.without[layer])
        self.scan = None
        return self.width


def plan_schedule(
    model: Any,
    budget: float,
    levels: int | Sequence[float] = 4,
    *,
    keep_first: int = 0,
    keep_last: int = 0,
    prompts: Any = None,
    draws: int = 1,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> SkipSchedule:
    """Choose which blocks to skip at which noise level, for a share of the compute of all blocks.

    One block at one noise level after the other, each time where the measured loss rises least for
    what is saved, until nothing more fits into the budget: `plan_skip(rule="greedy-loss")` over
    pairs of block and level. Each level has its own masked texts; skipping at one level does not change
    what another reads, so after a choice only the losses of that level are measured again. With
    `levels=1` it is a plan that skips the same blocks throughout, to compare with.

    Args:
        model: a diffusion model, or anything `dlens.trace` takes.
        budget: the share of block compute to skip at most, over a run whose noise falls evenly from 1 to 0.
        levels: how many noise levels of equal width, or their edges from 0 to 1.
        keep_first, keep_last: how many blocks at either end are never skipped.
        prompts: texts that are masked; the shipped calibration text by default.
        draws: how often each text is masked at each level.
        batch_size: texts a forward.
        seed: chooses the masked tokens.
        progress: show a progress bar.

    Returns:
        The schedule; `schedule.apply(trace)` skips by it.

    Raises:
        ValueError: an autoregressive model, whose noise is undefined; a budget that skips nothing or
            everything; levels that do not rise from 0 to 1.

    Examples:
        >>> import dlens
        >>> schedule = dlens.plan_schedule("trio/diffusion", 1 / 16, levels=2, prompts=["Once upon a time"])
        >>> schedule.share
        0.0625
    """
    as_flag(progress, "progress")
    as_seed(seed)
    own = bare(model, "plan_schedule").model
    _need_noise(own)
    edges = _edges(levels)
    _, allowed = choosable(own.name, own.n_layers, 1, keep_first, keep_last)
    left = _check_budget(budget, own, min(widths(edges))) * own.n_layers

    def scan(canvases: Canvases, gone: tuple[int, ...]) -> RemovalScan:
        return removal_scan(own, canvases, skipped=gone, layers=allowed, batch_size=batch_size, progress=progress)

    spans = list(enumerate(pairwise(edges)))
    read = [noise_canvases(own, span, prompts, draws, seed + level) for level, span in spans]
    parts = [_Level(hi - lo, scan(read[level], ())) for level, (lo, hi) in spans]
    while fits := [level for level, part in enumerate(parts) if part.fits(left, own.n_layers, len(allowed))]:
        for level in fits:
            if parts[level].scan is None:
                parts[level].scan = scan(read[level], tuple(parts[level].gone))
        left -= parts[min(fits, key=lambda level: parts[level].price)].take()
    schedule = SkipSchedule(
        levels=edges,
        layers=tuple(tuple(sorted(part.gone)) for part in parts),
        budget=budget,
        n_layers=own.n_layers,
        losses=tuple(part.losses[-1] for part in parts),
        whole_losses=tuple(part.losses[0] for part in parts),
        model=own.name,
        notes=tuple(canvases.estimator for canvases in read),
    )
    if all(part.full(own.n_layers, len(allowed)) for part in parts) and left > _SLACK:
        warnings.warn(
            f"the schedule skips {schedule.share:.4g} of the blocks' compute; {budget:.4g} was asked for, but no more "
            f"blocks may be chosen; keep fewer at the ends, or lower the budget",
            stacklevel=2,
        )
    return schedule


def noise_losses(
    chain: Trace,
    levels: int | Sequence[float] = 4,
    texts: Any = None,
    *,
    draws: int = 1,
    batch_size: int = 8,
    seed: int = 0,
) -> tuple[float, ...]:
    """Mean cross-entropy of masked tokens at each noise level, with whatever operations a trace has.

    Args:
        chain: of a diffusion model.
        levels: how many noise levels of equal width, or their edges from 0 to 1.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        draws: how often each text is masked at each level.
        batch_size: texts a forward.
        seed: the same seed masks the same tokens, so that two traces can be compared.

    Returns:
        One loss a level, in nats a token.

    Examples:
        >>> import dlens
        >>> len(noise_losses(dlens.trace("trio/diffusion"), levels=2, texts=["Once upon a time"]))
        2
    """
    _need_noise(chain.model)
    spans = enumerate(pairwise(_edges(levels)))
    read = [noise_canvases(chain.model, span, texts, draws, seed + level) for level, span in spans]
    return tuple(loss.value for loss in losses_of(chain, read, batch_size))


def _edges(levels: int | Sequence[float]) -> tuple[float, ...]:
    if isinstance(levels, Sequence):
        edges = tuple(as_number(edge, "levels") for edge in levels)
    else:
        count = as_index(levels, "levels")
        edges = tuple(level / count for level in range(count + 1)) if count > 0 else ()
    if len(edges) < 2 or (edges[0], edges[-1]) != (0.0, 1.0) or any(lo >= hi for lo, hi in pairwise(edges)):
        raise ValueError(
            f"levels={levels!r}; expected how many, or edges that rise from 0 to 1; give for example 4, or (0, 0.5, 1)"
        )
    return edges


def _need_noise(model: Model) -> None:
    if model.family.objective != "diffusion":
        raise ValueError(
            f"a schedule over noise levels for {model.name}, which is autoregressive; expected a diffusion model, as "
            f"the noise level of an autoregressive model is undefined; use plan_skip(model, n, rule='greedy-loss')"
        )


def _check_budget(budget: float, model: Model, least: float) -> float:
    """The budget, if it buys at least one block at the narrowest level, and leaves a block everywhere."""
    share = as_number(budget, "budget")
    lowest, highest = least / model.n_layers, 1 - 1 / model.n_layers
    if not lowest - _SLACK <= share <= highest + _SLACK:
        raise ValueError(
            f"budget={budget!r} for the {model.n_layers} blocks of {model.name}; expected a share of their compute "
            f"from {lowest:.4g}, one block at the narrowest level, to {highest:.4g}, as one block must stay; give for "
            f"example 0.1875"
        )
    return share

"""A schedule: which blocks are skipped at which noise level, and what that costs and saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import final

from dlens.checks import check_fields, refuse
from dlens.tracing.chain import Trace

__all__ = ["SkipSchedule", "mean_loss", "widths"]


@final
@dataclass(frozen=True)
class SkipSchedule:
    """Blocks to skip, by noise level.

    Args:
        levels: edges of the noise levels, from 0 to 1.
        layers: for each level the places that are skipped there, in rising order.
        budget: the share of block compute that was to be skipped at most.
        n_layers: depth of the model.
        losses: for each level the mean cross-entropy of masked tokens with its blocks skipped.
        whole_losses: the same with nothing skipped.
        model: whose blocks they are.
        notes: how the numbers came about.

    Examples:
        >>> import dlens
        >>> schedule = dlens.plan_schedule("trio/diffusion", 1 / 16, levels=2, prompts=["Once upon a time"])
        >>> schedule.levels, sum(map(len, schedule.layers)), schedule.share
        ((0.0, 0.5, 1.0), 2, 0.0625)
        >>> schedule.loss > 0, schedule.whole_loss > 0
        (True, True)
        >>> record = schedule.apply(dlens.trace("trio/diffusion")).generate("Once upon a time", 4)
        >>> record.saved_flops > 0
        True
    """

    levels: tuple[float, ...]
    layers: tuple[tuple[int, ...], ...]
    budget: float
    n_layers: int
    losses: tuple[float, ...]
    whole_losses: tuple[float, ...]
    model: str
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.plan_schedule make it")
        counts = {"layers": len(self.layers), "losses": len(self.losses), "whole_losses": len(self.whole_losses)}
        if set(counts.values()) != {len(self.levels) - 1}:
            raise ValueError(
                f"SkipSchedule has {len(self.levels)} edges of levels and "
                f"{', '.join(f'{n} {name}' for name, n in counts.items())}; expected one of each between two edges; "
                f"let dlens.plan_schedule make it"
            )

    @property
    def share(self) -> float:
        """Share of block compute that is skipped where noise runs evenly from 1 to 0, as with one token a step."""
        return (
            sum(width * len(own) for width, own in zip(widths(self.levels), self.layers, strict=True)) / self.n_layers
        )

    @property
    def loss(self) -> float:
        """Loss in nats a token, averaged over noise from 0 to 1."""
        return mean_loss(self.levels, self.losses)

    @property
    def whole_loss(self) -> float:
        """The same with nothing skipped."""
        return mean_loss(self.levels, self.whole_losses)

    def apply(self, chain: Trace) -> Trace:
        """A trace that also skips each block at its noise levels.

        Raises:
            ValueError, IndexError: the trace cannot skip them.
        """
        if not isinstance(chain, Trace):
            refuse("chain", chain, "a trace", "pass dlens.trace(model)")
        spans: dict[tuple[float, float], list[int]] = {}
        for layer in sorted(set().union(*self.layers)):
            for span in self._spans(layer):
                spans.setdefault(span, []).append(layer)
        for span, layers in spans.items():
            chain = chain.skip(layers, noise=None if span == (0.0, 1.0) else span)
        return chain

    def _spans(self, layer: int) -> list[tuple[float, float]]:
        """The ranges of noise in which a layer is skipped, adjoining levels joined."""
        runs = groupby(range(len(self.layers)), key=lambda level: layer in self.layers[level])
        levels = [list(run) for skipped, run in runs if skipped]
        return [(self.levels[run[0]], self.levels[run[-1] + 1]) for run in levels]


def mean_loss(levels: Sequence[float], losses: Sequence[float]) -> float:
    """Losses of noise levels, averaged over noise from 0 to 1.

    Examples:
        >>> mean_loss((0.0, 0.25, 1.0), (4.0, 8.0))
        7.0
    """
    return sum(width * loss for width, loss in zip(widths(levels), losses, strict=True))


def widths(levels: Sequence[float]) -> list[float]:
    """How much of the noise from 0 to 1 each level has.

    Examples:
        >>> widths((0.0, 0.25, 1.0))
        [0.25, 0.75]
    """
    return [hi - lo for lo, hi in pairwise(levels)]

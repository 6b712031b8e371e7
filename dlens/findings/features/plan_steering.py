"""When to steer: more where an attribute forms, with the same budget as at all steps alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from dlens.checks import check_fields, refuse
from dlens.ops.base.given import as_index, as_number

__all__ = ["SteeringSchedule", "plan_steering"]


@final
@dataclass(frozen=True)
class SteeringSchedule:
    """How strongly to steer at each step, beside the constant control with the same sum.

    Args:
        scales: one a step, for `Trace.steer(vector, scale=schedule.scales)`.
        alpha: their mean.
        curve: the commitment curve that they follow, at the end of each step, from at least 0 to 1.

    Examples:
        >>> import dlens
        >>> schedule = dlens.plan_steering([0.5, 0.5, 0.9, 0.9], alpha=2.0, chance=0.5)
        >>> schedule.scales, schedule.constant, schedule.dispersion
        ((0.0, 0.0, 8.0, 0.0), (2.0, 2.0, 2.0, 2.0), 4.0)
    """

    scales: tuple[float, ...]
    alpha: float
    curve: tuple[float, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.plan_steering make it")

    @property
    def constant(self) -> tuple[float, ...]:
        """The control: the same at every step, with the same sum."""
        return (self.alpha,) * len(self.scales)

    @property
    def dispersion(self) -> float:
        """T x the sum of squared weights: 1 is the same at all T steps, T a single step; NaN for a sum of 0."""
        total = sum(self.scales)
        return len(self.scales) * sum((scale / total) ** 2 for scale in self.scales) if total else float("nan")


def plan_steering(
    scores: Any, alpha: float = 1.0, *, chance: float = 0.0, n_steps: int | None = None
) -> SteeringSchedule:
    """A schedule over the steps of a run from how well an attribute can be read at each.

    c_t is the score above chance, scaled so that the last is 1 and never below 0; w_t is what it rises by at step t,
    max(0, c_t - c_(t-1)) with 0 before the first, divided by the sum; the scale at step t is alpha x T x w_t. This is
    dlens's own: Steering Without Breaking (arXiv 2605.10971), which intervenes where an attribute forms, does not
    publish its formula. Always run `constant` beside it, which has the same sum.

    Args:
        scores: one a step, such as `dlens.probe(record, labels)["score"].sel(layer=8)`, or an autoencoder's.
        alpha: the mean scale.
        chance: the score of a blind guess, such as the attribute "chance" of `dlens.probe`.
        n_steps: of the run that will be steered; as many as scores by default, else the curve is read in between.

    Returns:
        The schedule.

    Raises:
        ValueError: scores that are not above chance at the end, or NaN.

    Examples:
        >>> import dlens
        >>> [round(scale, 2) for scale in dlens.plan_steering([0.2, 0.6, 1.0], alpha=1.0).scales]
        [0.6, 1.2, 1.2]
        >>> len(dlens.plan_steering([0.2, 0.6, 1.0], n_steps=8).scales)
        8
    """
    mean, floor = as_number(alpha, "alpha"), as_number(chance, "chance")
    steps = len(_read(scores)) if n_steps is None else as_index(n_steps, "n_steps")
    if steps < 1:
        refuse("n_steps", n_steps, "at least 1", "give the planned steps of the run")
    curve = _curve(_read(scores), floor, steps)
    rises = np.maximum(np.diff(curve, prepend=0.0), 0)
    scales = mean * steps * rises / rises.sum()
    return SteeringSchedule(tuple(scales.tolist()), mean, tuple(curve.tolist()))


def _read(scores: Any) -> Float[np.ndarray, " step"]:
    """Scores as numbers; a score that is not there is that of the step before."""
    try:
        found = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim != 1 or not len(found) or np.isnan(found[-1]) or np.isinf(found).any():
        refuse("scores", scores, "one number a step, the last of them known", "pass probe(...)['score'].sel(layer=8)")
    for step in np.flatnonzero(np.isnan(found)):
        found[step] = found[step - 1] if step else -np.inf
    return found


def _curve(scores: Float[np.ndarray, " step"], chance: float, steps: int) -> Float[np.ndarray, " planned"]:
    above = np.maximum(scores - chance, 0)
    if above[-1] <= 0:
        raise ValueError(
            f"scores end at {scores[-1]:g}, with chance {chance:g}; expected more than chance at the last step, as "
            f"nothing was committed else; look at another layer, or give other labels"
        )
    ends = np.arange(1, len(above) + 1) / len(above)
    # From nothing before the first step to the end of the last.
    return np.interp(np.arange(1, steps + 1) / steps, [0.0, *ends], [0.0, *(above / above[-1])])

"""What a steering vector does to texts: how strong it is and what it costs, scheduled and at all steps alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dlens.checks import check_fields, refuse
from dlens.findings.features.plan_steering import SteeringSchedule
from dlens.findings.scores.canvases import check_draws, text_canvases
from dlens.findings.scores.estimate import Estimate, mean_of
from dlens.findings.scores.loss import losses_of
from dlens.ops.base.given import Indices, as_count, as_number
from dlens.ops.base.tokens import TokenSpec
from dlens.samplers.sampler import Sampler
from dlens.tracing.chain import Trace, trace
from dlens.tracing.records.record import Record

__all__ = ["Steering", "steering"]

# The scheduled run is the first, as it says whether the schedule fits before anything is computed.
_VARIANTS = ("scheduled", "constant", "plain")


@final
@dataclass(frozen=True)
class Steering:
    """Texts of a model as it is, steered at all steps alike, and steered as a schedule says, from the same prompts.

    Args:
        strength: "plain", "constant" and "scheduled" -> the mean over prompts of what the texts score.
        fluency: the same of the model's own loss of the texts without steering, in nats a token; less is more fluent.
        stronger: strength scheduled minus constant, paired by prompt.
        costlier: loss scheduled minus constant, paired by prompt.
        texts: the continuations.
        schedule: the scales.
        estimator: which loss the fluency is.

    Examples:
        >>> import dlens
        >>> vector = dlens.load_sae("trio/diffusion").direction(3)
        >>> schedule = dlens.plan_steering([0.5, 1.0, 1.0, 1.0], alpha=4.0)
        >>> found = dlens.steering(
        ...     "trio/diffusion", vector, 8, schedule, ["Once upon a time", "The dog"], strength=len, max_new_tokens=4)
        >>> list(found.strength), found.stronger.n, len(found.texts["plain"])
        (['plain', 'constant', 'scheduled'], 2, 2)
    """

    strength: Mapping[str, Estimate]
    fluency: Mapping[str, Estimate]
    stronger: Estimate
    costlier: Estimate
    texts: Mapping[str, Sequence[str]]
    schedule: SteeringSchedule
    estimator: str

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.steering make it", Estimate, SteeringSchedule)


def steering(
    model: Any,
    vector: Any,
    layers: Indices,
    schedule: SteeringSchedule,
    prompts: Any,
    strength: Callable[[str], float],
    *,
    max_new_tokens: int = 64,
    at: str = "resid_post",
    tokens: TokenSpec = "all",
    sampler: Sampler | None = None,
    draws: int = 4,
    batch_size: int = 8,
    seed: int = 0,
) -> Steering:
    """Steer by a schedule and by its constant control with the same sum, and compare texts with those without.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        vector: as in `Trace.steer`, such as a row of `dlens.direction` or `sae.direction(feature)`.
        layers: where it is added.
        schedule: from `dlens.plan_steering`, for as many steps as the run has.
        prompts: anything `Trace.generate` takes.
        strength: a function of a continuation that gives a number: what steering is to raise, such as a classifier's
            probability or the share of some words.
        max_new_tokens, sampler, seed: as in `Trace.generate`.
        at, tokens: where the vector is added, as in `Trace.steer`.
        draws: how many times each text is masked for its loss (diffusion only).
        batch_size: texts a forward of the loss.

    Returns:
        Strength and fluency with 95 % intervals over prompts, and their paired differences.

    Raises:
        ValueError: a schedule of another number of steps than the run, a model without a tokenizer, or a score that is
            no number; before anything is computed, but for the score.

    Examples:
        >>> import dlens
        >>> schedule = dlens.plan_steering([1.0, 1.0], alpha=2.0)
        >>> found = dlens.steering("trio/diffusion", [1.0] * 192, 8, schedule, ["Once"], len, max_new_tokens=2)
        >>> found.schedule.dispersion
        2.0
    """
    base = model if isinstance(model, Trace) else trace(model)
    if not isinstance(schedule, SteeringSchedule):
        refuse("schedule", schedule, "what dlens.plan_steering made", "pass dlens.plan_steering(scores, alpha=2.0)")
    if not callable(strength):
        refuse("strength", strength, "a function of a text that gives a number", "pass for example len")
    check_draws(draws, seed)
    as_count(batch_size, "batch_size")
    if base.model.tokenizer is None:
        raise ValueError(
            f"{base.model.name} has no tokenizer; expected one, as strength is measured on text; load with tokenizer="
        )
    scales = {"scheduled": schedule.scales, "constant": schedule.constant}
    chains = {
        name: base.steer(vector, layers, scales[name], at=at, tokens=tokens) if name in scales else base
        for name in _VARIANTS
    }
    records = {
        name: chain.generate(prompts, max_new_tokens, sampler=sampler, seed=seed, progress=False)
        for name, chain in chains.items()
    }
    scores = {name: _scores(record, strength) for name, record in records.items()}
    losses = {name: _losses(base, record, draws, batch_size, seed) for name, record in records.items()}
    order = _VARIANTS[::-1]
    return Steering(
        strength={name: mean_of(scores[name]) for name in order},
        fluency={name: mean_of(losses[name], "nats a token") for name in order},
        stronger=mean_of(scores["scheduled"] - scores["constant"]),
        costlier=mean_of(losses["scheduled"] - losses["constant"], "nats a token"),
        texts={name: tuple(records[name].text) for name in order},
        schedule=schedule,
        estimator=text_canvases(base.model, [[0, 0]], draws, seed).estimator,
    )


def _scores(record: Record, strength: Callable[[str], float]) -> np.ndarray:
    return np.array([as_number(strength(text), "strength of a text") for text in record.text])


def _losses(base: Trace, record: Record, draws: int, batch_size: int, seed: int) -> np.ndarray:
    """The plain model's loss of each text with its prompt, in nats a token."""
    rows = [row[real].tolist() for row, real in zip(record.tokens, ~record.is_pad, strict=True)]
    parts = [text_canvases(base.model, [row], draws, seed + place) for place, row in enumerate(rows)]
    return np.array([each.value for each in losses_of(base, parts, batch_size, mixed=True)])

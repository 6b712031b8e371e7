"""Which blocks to skip, by any of the published rules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any, Literal, final, get_args

from dlens.checks import as_flag, check_fields, require_word
from dlens.findings.layers.profile import Profile
from dlens.findings.scores.canvases import Canvases, check_draws, text_canvases
from dlens.findings.skipping.block_scores import angular_distances, block_similarity
from dlens.findings.skipping.choosable import bare, choosable
from dlens.findings.skipping.rules import best, best_run, paper_rule
from dlens.findings.skipping.scan import greedy_removal
from dlens.models.model import Model
from dlens.ops.base.given import as_number
from dlens.tracing.chain import Trace, trace

__all__ = ["Rule", "SkipPlan", "plan_skip"]

Rule = Literal["cosine", "block-influence", "angular", "cka", "greedy-loss"]
PAPER_THRESHOLD = 0.95


@final
@dataclass(frozen=True)
class SkipPlan:
    """Blocks to skip; goes straight into `Trace.skip`.

    Args:
        layers: their places, in rising order.
        rule: how they were chosen.
        scores: by layer, what the rule compared: the cosine or CKA of what enters and leaves the block,
            its Block Influence, the angular distance over the run of blocks that starts there, or what
            removing the block alone adds to the loss; NaN where it is not defined or was not asked.
        order: the same layers in the order in which they were chosen.
        losses: for "greedy-loss" the loss before any removal and after each, in nats a token.
        model: whose blocks they are.
        notes: how the numbers came about.

    Examples:
        >>> import dlens
        >>> plan = dlens.plan_skip("trio/ar", n=2, rule="block-influence", prompts=["Once upon a time"])
        >>> len(plan.layers), plan.rule, len(plan.scores), sorted(plan.order) == list(plan.layers)
        (2, 'block-influence', 16, True)
    """

    layers: tuple[int, ...]
    rule: str
    scores: tuple[float, ...]
    order: tuple[int, ...]
    losses: tuple[float, ...]
    model: str
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.plan_skip make it, or pass a list of layers to .skip")


@dataclass(frozen=True)
class _Choice:
    """What a rule found: layers in the order chosen, its scores by layer, losses, and notes."""

    order: Sequence[int]
    scores: Sequence[float]
    losses: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def plan_skip(
    model: Any,
    n: int,
    rule: str = "cosine",
    *,
    threshold: float | None = None,
    keep_first: int = 0,
    keep_last: int = 0,
    prompts: Any = None,
    draws: int = 2,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> SkipPlan:
    """Choose blocks to skip.

    - "cosine": blocks whose cosine of input and output is above the threshold, the most similar first,
      no two of them neighbours (arXiv 2603.07475). Where taking the most similar first ends with fewer
      than n though more fit, the largest such set with the largest sum is taken instead.
    - "block-influence": the lowest 1 - cosine, neighbours allowed (ShortGPT, arXiv 2403.03853).
    - "angular": the n blocks in a row over which the stream turns least (arXiv 2403.17887).
    - "cka": as "cosine" with the CKA of what leaves the block before and the block itself, and no
      threshold of its own; the first block, which has none before, is never chosen.
    - "greedy-loss": one block at a time, each time the one without which the measured loss is lowest.

    Args:
        model: anything `dlens.trace` takes, or a `dlens.Profile` that holds what the rule reads;
            "angular" and "greedy-loss" need a model.
        n: how many blocks.
        rule: see above.
        threshold: least similarity of a block that may be skipped, for "cosine" (0.95 by default) and "cka".
        keep_first, keep_last: how many blocks at either end are never chosen.
        prompts: what a model reads; the shipped calibration text by default.
        draws: how often each text is masked for the loss (diffusion only).
        batch_size: texts a forward.
        seed: chooses the masked tokens.
        progress: show a progress bar where losses are measured.

    Returns:
        The plan; shorter than n, with a warning, where the rule finds no more.

    Raises:
        ValueError: an unknown rule, no block that may be chosen, more blocks than may go, or scores
            that are not finite.

    Examples:
        >>> import dlens
        >>> plan = dlens.plan_skip("trio/ar", n=2, rule="block-influence", prompts=["Once upon a time"])
        >>> dlens.trace("trio/ar").skip(plan).ops[0].layers == plan.layers
        True
    """
    _check_rule(rule, threshold)
    check_draws(draws, seed)
    as_flag(progress, "progress")
    source = model if isinstance(model, (Profile, Trace)) else trace(model)
    name, n_layers = _size(source)
    n, allowed = choosable(name, n_layers, n, keep_first, keep_last)
    if rule in ("angular", "greedy-loss"):
        chain = bare(source, f"rule={rule!r}")
        if rule == "angular":
            choice = _angular(chain, n, allowed, prompts, batch_size, seed)
        else:
            canvases = text_canvases(chain.model, prompts, draws, seed)
            choice = _greedy_loss(chain.model, canvases, n, allowed, batch_size, progress)
    else:
        similar = block_similarity(source, rule, prompts, batch_size, seed)
        choice = _by_similarity(rule, similar, n, allowed, threshold)
    if len(choice.order) < n:
        warnings.warn(_shorter(name, rule, len(choice.order), n), stacklevel=2)
    order = tuple(choice.order)
    return SkipPlan(tuple(sorted(order)), rule, tuple(choice.scores), order, choice.losses, name, choice.notes)


def _check_rule(rule: str, threshold: float | None) -> None:
    require_word("rule", rule, get_args(Rule))
    if threshold is not None:
        as_number(threshold, "threshold")
    if threshold is not None and rule not in ("cosine", "cka"):
        raise ValueError(
            f"threshold={threshold} with rule={rule!r}; expected it with 'cosine' or 'cka', which compare "
            f"similarities; leave it out"
        )


def _size(source: Profile | Trace) -> tuple[str, int]:
    if isinstance(source, Profile):
        return source.model, source.n_layers
    return source.model.name, source.model.n_layers


def _by_similarity(
    rule: str, similar: Sequence[float], n: int, allowed: Sequence[int], threshold: float | None
) -> _Choice:
    if rule == "cka":
        allowed = [layer for layer in allowed if layer > 0]
    _refuse_undefined(rule, similar, allowed)
    if rule == "block-influence":
        return _Choice(best(similar, allowed, n), [1 - value for value in similar])
    if rule == "cosine" and threshold is None:
        threshold = PAPER_THRESHOLD
    order, notes = paper_rule(similar, allowed, n, threshold)
    return _Choice(order, similar, notes=notes)


def _refuse_undefined(rule: str, scores: Sequence[float], allowed: Sequence[int]) -> None:
    undefined = [layer for layer in allowed if not isfinite(scores[layer])]
    if undefined:
        raise ValueError(
            f"rule={rule!r} has no finite score at layers {', '.join(map(str, undefined))}; expected one at each layer "
            f"that may be chosen; profile a model that skips nothing, and look for NaN in its activations"
        )


def _angular(chain: Trace, n: int, allowed: range, prompts: Any, batch_size: int, seed: int) -> _Choice:
    length = min(n, len(allowed))
    distances = angular_distances(chain, length, prompts, batch_size=batch_size, seed=seed)
    _refuse_undefined("angular", distances, [layer for layer in allowed if layer < len(distances)])
    run = best_run([-distance for distance in distances], allowed, length)
    return _Choice(run, [*distances, *[nan] * (length - 1)])


def _greedy_loss(model: Model, canvases: Canvases, n: int, allowed: range, batch_size: int, progress: bool) -> _Choice:
    removed = greedy_removal(model, canvases, n, allowed, batch_size, progress)
    first = removed[0][1]
    scores = [first.increase(layer) if layer in first.without else nan for layer in range(model.n_layers)]
    losses = (first.loss, *(scan.without[layer] for layer, scan in removed))
    return _Choice([layer for layer, _ in removed], scores, losses, (first.estimator,))


def _shorter(name: str, rule: str, found: int, n: int) -> str:
    if rule == "cosine":
        why = "no more blocks are above the threshold and apart from each other"
        fix = "lower threshold=, or use rule='block-influence'"
    elif rule == "cka":
        why, fix = "no more blocks are apart from each other and above the threshold, if any", "ask for fewer"
    else:
        why, fix = "no more blocks may be chosen", "keep fewer at the ends"
    return (
        f"rule={rule!r} found {found} blocks of {name} to skip; {n} were asked for, but {why}; {fix}, or ask for fewer"
    )

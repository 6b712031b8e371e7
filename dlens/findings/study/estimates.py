"""The effect behind each claim, with its 95 % interval, from the numbers of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, final

import numpy as np
from jaxtyping import Float

from dlens.findings.layers.compare import relative_depth
from dlens.findings.scores.intervals import LEVEL, mean_interval, ratio_interval
from dlens.findings.study.changes import third
from dlens.findings.study.study import Study

__all__ = [
    "Effect",
    "dynamics",
    "early_redundancy",
    "kept",
    "kept_share",
    "late_minus_early",
    "loss_change",
    "mean_effect",
    "outlier_share",
    "recency",
    "third",
]

Texts = Float[np.ndarray, "text ..."]
_DEPTHS = 16
_RESAMPLES = 999


@final
@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval over texts or problems.

    Args:
        value, low, high: the number and its interval; NaN where there is none.
        why: why there is none, or what else a reader must know.
        beside: further numbers of the same kind, by what they are.
        shown: those without which the number would mislead, by words for a reader.
    """

    value: float
    low: float
    high: float
    why: str = ""
    beside: tuple[tuple[str, Effect], ...] = ()
    shown: tuple[tuple[str, Effect], ...] = ()


def mean_effect(values: Texts, seed: int = 0) -> Effect:
    """The mean over texts."""
    mean, low, high = mean_interval(np.asarray(values, float)[:, None], _RESAMPLES, seed)
    return Effect(float(mean[0]), float(low[0]), float(high[0]))


def early_redundancy(study: Study, name: str) -> Effect:
    """Cosine of early blocks minus that of late blocks, text by text."""
    noise = study.models[name]["reading"]["noise"]

    def at(texts: Mapping[str, Any]) -> Effect:
        cosine = np.array(texts["cosine"])
        n = third(cosine.shape[1])
        return mean_effect(cosine[:, 1 : 1 + n].mean(1) - cosine[:, -n:].mean(1), study.settings.seed)

    return _beside(at(noise["0"]), {_masked(rate): at(texts) for rate, texts in noise.items() if rate != "0"})


def recency(study: Study, name: str) -> Effect:
    """Recency index of the model minus that of the other kind of model, text by text."""
    kind = study.models[name]["kind"]
    other = "ar" if kind == "diffusion" else "diffusion"
    against = [_index(study, own) for own in _of_kind(study, other)]
    own = _index(study, name)
    itself = {"the index itself": mean_effect(own, study.settings.seed)}
    if not against:
        return _beside(Effect(nan, nan, nan, f"no {_words(other)} model to compare with"), itself)
    return _beside(mean_effect(own - np.mean(against, axis=0), study.settings.seed), itself)


def dynamics(study: Study, name: str) -> Effect:
    """Where the profile of a model lies between native diffusion and AR, with the line from other texts."""
    from scipy.stats import bootstrap

    ends = [[_profile(study, own) for own in _of_kind(study, kind)] for kind in ("diffusion", "ar")]
    if not all(ends):
        missing = "ar" if ends[0] else "diffusion"
        return Effect(nan, nan, nan, f"no {_words(missing)} model to compare with")
    zero, one = (np.mean(end, axis=0)[1::2] for end in ends)
    own = _profile(study, name)[0::2]

    def place(texts: np.ndarray, others: np.ndarray) -> float:
        start, line = zero[others].mean(0), one[others].mean(0) - zero[others].mean(0)
        return float((own[texts].mean(0) - start) @ line / (line @ line))

    samples = (np.arange(len(own)), np.arange(len(zero)))
    value = place(*samples)
    if min(map(len, samples)) < 2:
        return Effect(value, nan, nan, "too few texts for an interval")
    rng = np.random.default_rng(study.settings.seed)
    drawn = bootstrap(
        samples, place, n_resamples=_RESAMPLES, vectorized=False, method="percentile", confidence_level=LEVEL, rng=rng
    ).confidence_interval
    return Effect(value, float(drawn.low), float(drawn.high))


def kept(change: str) -> Callable[[Study, str], Effect]:
    """The share of the accuracy that is left after a change, with the loss, and with the controls of an ablation."""

    def measure(study: Study, name: str) -> Effect:
        model, loss = study.models[name], loss_change(study, name, change)
        answers, beside = model["answers"], {"loss, nats a token": loss}
        if change == "early run" and "late run" in answers:
            beside["kept where as many late blocks are skipped"] = _kept(study, name, "late run")
        if change == "no outlier":
            beside["kept without a random channel"] = _kept(study, name, "no random")
            if "no next" in answers:
                beside["kept without the next largest"] = _kept(study, name, "no next")
        effect = _kept(study, name, change)
        problems = f"the verdict is about {len(answers['whole']['correct'])} problems"
        why = f"{_blocks(model, change)}{model['changes'][change]}; {problems}; {effect.why}"
        shown = (("rise of the loss, nats a token", loss),)
        return Effect(effect.value, effect.low, effect.high, why, tuple(beside.items()), shown)

    return measure


def _blocks(model: Mapping[str, Any], change: str) -> str:
    skipped = model["skipped"][change]
    return f"{len(skipped)} of {model['n_layers']} blocks: " if skipped else ""


def _kept(study: Study, name: str, change: str) -> Effect:
    answers = study.models[name]["answers"]
    return kept_share(answers["whole"]["correct"], answers[change]["correct"], study.settings.seed)


def kept_share(before: Sequence[int], after: Sequence[int], seed: int = 0) -> Effect:
    """sum(after) / sum(before) with a paired bootstrap interval over problems.

    Where every resample agrees, as where no answer changed, the bootstrap says nothing of how few problems there
    were; there the exact (Clopper-Pearson) interval of the share of solved problems is taken.

    Examples:
        >>> kept_share([1, 1, 1, 0], [0, 0, 0, 0]).high > 0.5
        True
    """
    from scipy.stats import binomtest

    solved = sum(before)
    if not solved:
        return Effect(nan, nan, nan, f"not measurable: baseline solves 0 of {len(before)}")
    value = sum(after) / solved
    low, high = ratio_interval([bool(x) for x in before], [bool(x) for x in after], seed=seed)
    if isnan(low):
        return Effect(value, nan, nan, f"baseline solves {solved} of {len(before)}, too few for an interval")
    if low == high:
        exact = binomtest(min(sum(after), solved), solved).proportion_ci(LEVEL, "exact")
        low, high = float(exact.low), float(exact.high)
    return Effect(value, low, high, f"baseline solves {solved} of {len(before)}")


def loss_change(study: Study, name: str, change: str, against: str = "whole") -> Effect:
    """Loss after a change minus the loss of the model as it is, text by text."""
    losses = study.models[name]["losses"]
    return mean_effect(np.subtract(losses[change]["losses"], losses[against]["losses"]), study.settings.seed)


def late_minus_early(study: Study, name: str) -> Effect:
    """Loss without late blocks minus the loss without early ones, text by text."""
    beside = {f"without {part} blocks": loss_change(study, name, f"{part} run") for part in ("early", "late")}
    return _beside(loss_change(study, name, "late run", "early run"), beside)


def outlier_share(study: Study, name: str) -> Effect:
    """Energy share of the largest channel in the first third of the blocks, text by text.

    The shares with masks are shown with it, and the next channel where it holds half as much or more.
    """
    reading, seed = study.models[name]["reading"], study.settings.seed
    n_layers = study.models[name]["n_layers"]
    early, clean = third(n_layers), reading["noise"]["0"]

    def at(values: Sequence[Any], n: int = early) -> Effect:
        return mean_effect(np.array(values)[:, :n].mean(1), seed)

    channel, following = reading["early_channels"]
    masked = {rate: at(own["early_share"]) for rate, own in reading["noise"].items() if rate != "0"}
    beside = {"in all blocks but the last": at(clean["early_share"], n_layers - 1)}
    beside |= {_masked(rate): own for rate, own in masked.items()}
    shown = {f"with {float(rate):.0%} of the tokens masked": own for rate, own in masked.items()}
    effect, second = at(clean["early_share"]), at(clean["early_next_share"])
    if second.value >= effect.value / 2:
        beside, shown = (own | {f"channel {following}, the next": second} for own in (beside, shown))
    why = f"channel {channel}"
    if channel != reading["channel"]:
        why += f"; over all blocks but the last channel {reading['channel']} holds more"
    return Effect(effect.value, effect.low, effect.high, why, tuple(beside.items()), tuple(shown.items()))


def _beside(effect: Effect, others: Mapping[str, Effect]) -> Effect:
    return Effect(effect.value, effect.low, effect.high, effect.why, tuple(others.items()))


def _masked(rate: str) -> str:
    return f"{float(rate):.0%} masked"


def _words(kind: str) -> str:
    return {"ar": "autoregressive", "diffusion": "native diffusion"}[kind]


def _of_kind(study: Study, kind: str) -> list[str]:
    return [name for name, model in study.models.items() if model["kind"] == kind]


def _index(study: Study, name: str) -> Float[np.ndarray, " text"]:
    return np.array(study.models[name]["reading"]["noise"]["0"]["recency"]).mean(1)


def _profile(study: Study, name: str) -> Float[np.ndarray, "text depth"]:
    """Cosine of every block but the first, text by text, at the same relative depths for all models."""
    cosine = np.array(study.models[name]["reading"]["noise"]["0"]["cosine"])[:, 1:]
    depth, grid = relative_depth(cosine.shape[1]), np.linspace(0, 1, _DEPTHS)
    return np.stack([np.interp(grid, depth, row) for row in cosine])

"""The number behind each claim, with its 95 % interval, from what a study holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from dlens.findings.layers.compare import relative_depth, third
from dlens.findings.scores.estimate import Estimate, kept_less, kept_share, mean_of
from dlens.findings.scores.intervals import jackknife_interval
from dlens.findings.study.results import Compressed, ModelKind, ModelStudy, Reading, TextReading
from dlens.findings.study.study import Study
from dlens.tracing.probes.outlier import CALIBRATION_ROWS

__all__ = [
    "KEPT",
    "Measure",
    "blocks_apart",
    "blocks_words",
    "dynamics",
    "early_channel",
    "early_minus_late_alpha",
    "early_minus_late_sparser",
    "early_redundancy",
    "kept",
    "kept_beside_diffusion",
    "kept_compressed",
    "late_minus_early",
    "loss_change",
    "loss_compressed",
    "outlier_share",
    "overall",
    "own_index",
    "recency",
    "removed_channel",
]

# Of the accuracy, where it is said to stay.
KEPT = 0.95
_DEPTHS = 16
# Profiles nearer than single precision tells cosines apart are one.
_SAME = 1e-6
_NATS = "nats a token"

# An effect of one model of a study.
Measure = Callable[[Study, str], Estimate]


def early_redundancy(study: Study, name: str) -> Estimate:
    """Cosine of early blocks minus that of late blocks, text by text."""
    reading = study.models[name].reading

    def at(texts: TextReading) -> Estimate:
        n = third(texts.cosine.shape[1])
        early, late = texts.cosine[:, 1 : 1 + n].mean(1), texts.cosine[:, -n:].mean(1)
        return mean_of(early - late)

    return _beside(at(reading.clean), {_masked(rate): at(texts) for rate, texts in reading.masked.items()})


def recency(study: Study, name: str) -> Estimate:
    """Recency index of the model minus that of the other kind of model, text by text."""
    other: ModelKind = "ar" if study.models[name].kind == "diffusion" else "diffusion"
    against = [_index(own) for own in _of_kind(study, other)]
    own = _index(study.models[name])
    itself = {"the index itself": mean_of(own)}
    if not against:
        return _beside(_nothing(other), itself)
    return _beside(mean_of(own - np.mean(against, axis=0)), itself)


def dynamics(study: Study, name: str) -> Estimate:
    """Where the profile of a model lies between native diffusion and AR, with the line from other texts.

    NaN where the two have the same profile.
    """
    ends = [[_profile(own) for own in _of_kind(study, kind)] for kind in ("diffusion", "ar")]
    if not all(ends):
        return _nothing("ar" if ends[0] else "diffusion")
    line = np.stack([np.mean(end, axis=0)[1::2] for end in ends], axis=1)
    if np.allclose(*line.mean(0), rtol=0, atol=_SAME):
        same = "native diffusion and autoregressive models have the same profile, so nothing lies between"
        return Estimate(nan, nan, nan, same)
    own = _profile(study.models[name])[0::2]
    low, high = jackknife_interval([own, line], _place)
    why = "too few texts for an interval" if isnan(low) else ""
    return Estimate(_place(own, line), low, high, why, n=len(own))


def _place(own: Float[np.ndarray, "text depth"], line: Float[np.ndarray, "other 2 depth"]) -> float:
    """Where the mean profile lies between two others: 0 at the first, 1 at the second."""
    start, end = line.mean(0)
    way = end - start
    return float((own.mean(0) - start) @ way / (way @ way))


def kept(change: str) -> Measure:
    """The share of the accuracy that is left after a change, with the loss, and with the controls of an ablation."""

    def measure(study: Study, name: str) -> Estimate:
        return _told(study, name, change, _kept(study, name, change))

    return measure


def kept_beside_diffusion(change: str) -> Measure:
    """The share of the accuracy that is left after a change, minus that share of native diffusion."""

    def measure(study: Study, name: str) -> Estimate:
        own, others = study.models[name], _of_kind(study, "diffusion")
        if not others:
            return _told(study, name, change, _nothing("diffusion"), {"kept": _kept(study, name, change)})
        effect = kept_less(_answers(own, change), [_answers(other, change) for other in others])
        names = [name, *(other for other, model in study.models.items() if model.kind == "diffusion")]
        return _told(study, name, change, effect, {f"kept by {each}": _kept(study, each, change) for each in names})

    return measure


def _told(
    study: Study, name: str, change: str, effect: Estimate, parts: Mapping[str, Estimate] = MappingProxyType({})
) -> Estimate:
    """An effect on the accuracy with what a reader needs beside it."""
    model, loss = study.models[name], loss_change(study, name, change)
    beside = {**parts, f"loss, {_NATS}": loss}
    if change == "early run" and "late run" in model.answers:
        beside["kept where as many late blocks are skipped"] = _kept(study, name, "late run")
    other: dict[str, Estimate] = {}
    if change == "no outlier":
        other = _without_largest(study, name)
        beside |= other | {"kept without a random channel": _kept(study, name, "no random")}
        if "no next" in model.answers:
            beside["kept without the next largest"] = _kept(study, name, "no next")
    n = len(model.answers["whole"].correct)
    problems = f"the verdict is about {n} problems"
    what = _blocks(model, change) + model.changes[change].words
    if change == "no outlier":
        what += ", the largest of the first third of the blocks on calibration texts"
    why = "; ".join(filter(None, [what, problems, effect.why]))
    shown = {**parts, f"rise of the loss, {_NATS}": loss, **other}
    return replace(effect, why=why, beside=tuple(beside.items()), shown=tuple(shown.items()))


def own_index(study: Study, name: str) -> str:
    """The recency index of the model itself, of which the effect is a difference."""
    return f"its own index: {np.mean(_index(study.models[name])):.3f}".replace("-", "−")


def blocks_apart(study: Study, name: str) -> str:
    """Which blocks are skipped, which differs by model."""
    return blocks_words(study.models[name].changes["apart"].layers)


def blocks_words(layers: Sequence[int]) -> str:
    """Which blocks, in words.

    Examples:
        >>> blocks_words(range(1, 6)), blocks_words([7, 9, 12]), blocks_words([2])
        ('blocks 1 to 5', 'blocks 7, 9, 12', 'block 2')
    """
    if len(layers) == 1:
        return f"block {layers[0]}"
    in_a_row = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"blocks {f'{layers[0]} to {layers[-1]}' if in_a_row else ', '.join(map(str, layers))}"


def early_channel(study: Study, name: str) -> str:
    """The channel that is largest in the first third of the blocks."""
    return f"channel {study.models[name].reading.early_channels[0]}"


def removed_channel(study: Study, name: str) -> str:
    """The channel that an ablation sets to zero, the largest of the first third of the blocks."""
    reading = study.models[name].reading
    early = reading.early_channels[0]
    return f"channel {early} removed" + (
        "" if early == reading.channel else f", not {reading.channel}, larger over all"
    )


def _without_largest(study: Study, name: str) -> dict[str, Estimate]:
    """What is left without the channel that is the largest over all blocks but the last, where it is another."""
    model = study.models[name]
    if model.reading.channel == model.reading.early_channels[0]:
        return {}
    which = f"without channel {model.reading.channel}, the largest over all blocks but the last on calibration texts"
    kept = {f"kept {which}": _kept(study, name, "no largest")} if "no largest" in model.answers else {}
    return kept | {f"rise of the loss {which}, {_NATS}": loss_change(study, name, "no largest")}


def _blocks(model: ModelStudy, change: str) -> str:
    skipped = model.changes[change].layers
    return f"{len(skipped)} of {model.n_layers} blocks: " if skipped else ""


def _kept(study: Study, name: str, change: str) -> Estimate:
    return kept_share(*_answers(study.models[name], change))


def _answers(model: ModelStudy, change: str) -> tuple[Sequence[bool], Sequence[bool]]:
    """Whether each problem is solved before and after."""
    return model.answers["whole"].correct, model.answers[change].correct


def loss_change(study: Study, name: str, change: str, against: str = "whole") -> Estimate:
    """Loss after a change minus the loss of the model as it is, text by text."""
    losses = study.models[name].losses
    rise = np.subtract(losses[change].losses, losses[against].losses)
    return mean_of(rise, _NATS)


def late_minus_early(study: Study, name: str) -> Estimate:
    """Loss without late blocks minus the loss without early ones, text by text."""
    beside = {f"without {part} blocks": loss_change(study, name, f"{part} run") for part in ("early", "late")}
    return _beside(loss_change(study, name, "late run", "early run"), beside)


def kept_compressed(recipe: str) -> Measure:
    """The share of the accuracy that is left with fewer bits or weights, with the loss."""

    def measure(study: Study, name: str) -> Estimate:
        model = study.models[name]
        small, before = model.compressed[recipe], model.answers["whole"].correct
        rise = {f"loss, {_NATS}": loss_compressed(study, name, recipe)}
        effect = _beside(kept_share(before, small.correct), rise)
        return replace(effect, why=f"{_done(small)}; the verdict is about {len(before)} problems; {effect.why}")

    return measure


def _done(small: Compressed) -> str:
    left = f", without {', '.join(small.left_out)}" if small.left_out else ""
    return small.words + left


def loss_compressed(study: Study, name: str, recipe: str) -> Estimate:
    """Loss with fewer bits or weights minus the loss of the model as it is, text by text."""
    model = study.models[name]
    return mean_of(np.subtract(model.compressed[recipe].losses, model.losses["whole"].losses), _NATS)


def early_minus_late_sparser(study: Study, name: str) -> Estimate:
    """Accuracy with sparser early layers minus the accuracy with sparser late ones, problem by problem."""
    early, late = (study.models[name].compressed[f"half, {part} sparser"] for part in ("early", "late"))
    effect = mean_of(np.subtract(np.array(early.correct, float), np.array(late.correct, float)))
    shown = {
        "the same of the loss, " + _NATS: mean_of(np.subtract(early.losses, late.losses), _NATS),
        "kept with sparser early layers": _kept_small(study, name, "half, early sparser"),
        "kept with sparser late layers": _kept_small(study, name, "half, late sparser"),
        "kept with an even spread": _kept_small(study, name, "half, even"),
    }
    return _beside(replace(effect, why=f"{_done(early)} and {_done(late)}"), shown)


def _kept_small(study: Study, name: str, recipe: str) -> Estimate:
    model = study.models[name]
    return kept_share(model.answers["whole"].correct, model.compressed[recipe].correct)


def early_minus_late_alpha(study: Study, name: str) -> Estimate:
    """Exponent of the spectra of early blocks minus that of late ones, matrix by matrix."""
    spectra = study.models[name].spectra
    assert spectra is not None
    n = third(len(spectra.alpha))
    early, late = np.nanmean(spectra.alpha[:n], 0), np.nanmean(spectra.alpha[-n:], 0)
    effect = mean_of(early - late)
    return _beside(effect, {"early blocks": mean_of(early), "late blocks": mean_of(late)})


def outlier_share(study: Study, name: str) -> Estimate:
    """Energy share of the largest channel in the first third of the blocks, text by text.

    The shares with masks are shown with it, and the next channel where it holds half as much or more.
    """
    reading, n_layers = study.models[name].reading, study.models[name].n_layers
    early, clean = third(n_layers), reading.clean

    def at(values: Float[np.ndarray, "text layer"], n: int = early) -> Estimate:
        mean = mean_of(values[:, :n].mean(1))
        # An interval of means does not know that a share ends at 0 and at 1.
        return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))

    channel, following = reading.early_channels
    masked = {rate: at(own.early_share) for rate, own in reading.masked.items()}
    beside = {_over_all(channel): at(clean.early_share, n_layers - 1)}
    if channel != reading.channel:
        beside[_over_all(reading.channel)] = at(clean.share, n_layers - 1)
    beside |= {_masked(rate): own for rate, own in masked.items()}
    shown = {f"with {rate:.0%} of the tokens masked": own for rate, own in masked.items()}
    effect, second = at(clean.early_share), at(clean.early_next_share)
    if second.value >= effect.value / 2:
        beside, shown = (own | {f"channel {following}, the next": second} for own in (beside, shown))
    why = "; ".join(filter(None, [f"channel {channel}", overall(reading)]))
    return replace(effect, why=why, beside=tuple(beside.items()), shown=tuple(shown.items()))


def _over_all(channel: int) -> str:
    return f"channel {channel}, in all blocks but the last"


def overall(reading: Reading) -> str:
    """Which channel is larger over all blocks but the last than that of the early blocks, and on which texts.

    It is found by the energy of calibration texts together, the numbers of a report are means of the shares of its
    texts: the two may disagree. Empty where one channel is the largest throughout.
    """
    early, channel = reading.early_channels[0], reading.channel
    if early == channel:
        return ""
    own, other = (float(part[:, :-1].mean()) for part in (reading.clean.early_share, reading.clean.share))
    found = f"channel {channel} has the larger share of the energy of {CALIBRATION_ROWS} calibration texts together"
    here = f"the {len(reading.clean.share)} texts here"
    if own > other:
        mean = f"but on {here} channel {early} holds more ({_apart(own, other)})"
    else:
        mean = f"as on {here} ({_apart(other, own)})" if own < other else f"on {here} both hold as much ({own:.3f})"
    return f"over all blocks but the last {found} ({reading.share:.3f}), {mean}"


def _apart(larger: float, smaller: float) -> str:
    """Two shares, to as many digits as tell them apart."""
    digits = next((n for n in range(3, 9) if round(larger, n) != round(smaller, n)), 9)
    return f"{larger:.{digits}f} against {smaller:.{digits}f}"


def _beside(effect: Estimate, others: Mapping[str, Estimate]) -> Estimate:
    return replace(effect, beside=tuple(others.items()))


def _masked(rate: float) -> str:
    return f"{rate:.0%} masked"


def _nothing(kind: ModelKind) -> Estimate:
    words = {"ar": "autoregressive", "diffusion": "native diffusion"}[kind]
    return Estimate(nan, nan, nan, f"no {words} model to compare with")


def _of_kind(study: Study, kind: str) -> list[ModelStudy]:
    return [model for model in study.models.values() if model.kind == kind]


def _index(model: ModelStudy) -> Float[np.ndarray, " text"]:
    return model.reading.clean.recency.mean(1)


def _profile(model: ModelStudy) -> Float[np.ndarray, "text depth"]:
    """Cosine of every block but the first, text by text, at the same relative depths for all models."""
    cosine = model.reading.clean.cosine[:, 1:]
    depth, grid = relative_depth(cosine.shape[1]), np.linspace(0, 1, _DEPTHS)
    return np.stack([np.interp(grid, depth, row) for row in cosine])

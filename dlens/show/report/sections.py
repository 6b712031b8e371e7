"""The sections of a report: figures with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np
from jaxtyping import Float

from dlens.findings.layers.compare import relative_depth
from dlens.findings.scores.estimate import Curve, Estimate, kept_share, mean_curve
from dlens.findings.study.claims import Row
from dlens.findings.study.estimates import loss_change, loss_compressed, overall
from dlens.findings.study.study import Study
from dlens.models.source import TRIO
from dlens.show.figures.statistics import Statistic, bands, points, statistics_table
from dlens.show.figures.style import COLOURS
from dlens.show.report.page import Section
from dlens.show.report.seeds import seeds_section
from dlens.show.report.words import margin, side

__all__ = ["sections"]

_HALF = 0.5
# What changes are called in figures and tables.
_LABELS = {
    "whole": "as it is",
    "apart": "skip {n} apart",
    "early run": "skip {n} in a row, early",
    "late run": "skip {n} in a row, late",
    "no outlier": "largest early channel to zero",
    "no random": "random channel to zero",
    "mean outlier": "largest early channel to its mean",
    "no next": "next ones to zero",
    "no largest": "largest channel to zero",
}
_CHANGES = {
    "apart": "{apart}, no two neighbours",
    "no outlier": "of the first third of the blocks",
    "no next": "the next largest, as many as come closest to its energy on the calibration texts",
    "no largest": "the largest over all blocks but the last, where it is another",
}


def sections(found: Study, rows: Sequence[Row]) -> list[Section]:
    """Every section, in the order of the page."""
    shown = [
        _by_layer(
            found,
            "cosine",
            "What each block changes",
            "Cosine of what enters a block with what leaves it, on text without masks: near 1, the block turns the "
            "stream little. Block 0, which builds the stream, is in the table only. " + _bands(found),
            first=1,
        ),
        *_masked(found),
        _by_distance(found),
        _by_layer(
            found,
            "recency",
            "Recency by layer",
            "Recency index of what leaves each block, on text without masks: P(1) minus the mean of P(d) over d of "
            "half the text and more, where P(d) is the mean cosine of two positions d tokens apart.",
        ),
        _largest_channels(found),
        _accuracies(found),
        _losses(found),
        *_disruption(found),
        *_thirds(found),
        *_compressed(found),
        *_spectra(found),
        *_seeds(found),
        _behind(rows),
    ]
    return shown


def _bands(found: Study) -> str:
    """What the band of a line is, said once."""
    n = min(len(own.reading.clean.cosine) for own in found.models.values())
    return f"Bands, here and below: 95 % intervals over {n} texts; wide where one text differs from the rest."


def _label(found: Study, change: str) -> str:
    """What a change is called; of models that skip several numbers of blocks without one."""
    sizes = {len(own.changes[change].layers) for own in found.models.values() if change in own.changes}
    return _LABELS[change].format(n=sizes.pop() if len(sizes) == 1 else "blocks")


def _by_layer(found: Study, name: str, title: str, text: str, first: int = 0) -> Section:
    series = [_Line(model, getattr(own.reading.clean, name)) for model, own in found.models.items()]
    label = {"cosine": "cosine", "recency": "recency index"}[name]
    return _profiles(found, title, text, series, label, first)


def _largest_channels(found: Study) -> Section:
    """The channel that is the largest over all, and that of the early blocks where it is another; both are removed."""
    series = []
    for model, own in found.models.items():
        channel, early = own.reading.channel, own.reading.early_channels[0]
        series.append(_Line(model, own.reading.clean.share, f", channel {channel}"))
        if early != channel:
            series.append(_Line(model, own.reading.clean.early_share, f", channel {early}, early", dashed=True))
    text = (
        "Share of the stream's energy that one channel holds after each block, without masks. Solid: of the channel "
        "that is the largest over all blocks but the last."
    )
    if any(line.dashed for line in series):
        text += (
            " Dashed: of that which is the largest in the first third of the blocks, where it is another: the verdict "
            "on what is left without an outlier is about this one, and the other is removed as well."
        )
    texts = {model: words for model, own in found.models.items() if (words := overall(own.reading))}
    text += f" {'. '.join(f'{model}: {words}' for model, words in texts.items())}." if texts else ""
    return _profiles(found, "The largest channel", text, series, "energy share", ends=(0.0, 1.0))


@dataclass(frozen=True)
class _Line:
    """A line over depth.

    Args:
        model: whose.
        values: [text, layer].
        words: what the legend says besides the model.
        dashed: whether it is the second line of its model.
    """

    model: str
    values: Float[np.ndarray, "text layer"]
    words: str = ""
    dashed: bool = False


def _profiles(
    found: Study,
    title: str,
    text: str,
    series: Sequence[_Line],
    label: str,
    first: int = 0,
    ends: tuple[float, float] = (-inf, inf),
) -> Section:
    """Lines over depth with their numbers by layer; no interval goes beyond the ends that the numbers have."""
    models = list(found.models)
    measured = [
        _over_texts(
            line.model + line.words, label, "layer", range(line.values.shape[1]), _within(mean_curve(line.values), ends)
        )
        for line in series
    ]
    numbers = [models.index(line.model) for line in series]
    # A dash for the second line of a model, and dots where colours begin anew.
    dashes = [2 * (number // len(COLOURS)) + line.dashed for number, line in zip(numbers, series, strict=True)]
    figure = bands([own.after(first) for own in _on_one_axis(measured)], numbers, dashes)
    return Section(title, text, figure, *statistics_table(measured))


def _within(curve: Curve, ends: tuple[float, float]) -> Curve:
    return replace(curve, low=np.clip(curve.low, *ends), high=np.clip(curve.high, *ends))


def _over_texts(name: str, label: str, along: str, places: Sequence[int], curve: Curve) -> Statistic:
    """A mean over texts at places one after the other, with its interval."""
    return Statistic(name, label, along, places, *curve.parts())


def _on_one_axis(measured: Sequence[Statistic]) -> list[Statistic]:
    """By layer where all models have as many, else by relative depth."""
    if len({len(own.places) for own in measured}) == 1:
        return list(measured)
    return [replace(own, along="relative depth", places=relative_depth(len(own.places)).tolist()) for own in measured]


def _estimated(name: str, label: str, effects: Sequence[tuple[str, Estimate]]) -> Statistic:
    """Effects with their intervals, by what they are effects of."""
    values, low, high = ([getattr(effect, part) for _, effect in effects] for part in ("value", "low", "high"))
    notes = [effect.why for _, effect in effects]
    return Statistic(name, label, "", [change for change, _ in effects], values, low, high, notes=notes)


def _masked(found: Study) -> Iterator[Section]:
    series = []
    for name, own in found.models.items():
        if _HALF in own.reading.noise:
            texts = own.reading.noise[_HALF]
            series.append(_Line(name, texts.cosine_masked, ", masks"))
            series.append(_Line(name, texts.cosine_unmasked, ", other positions", dashed=True))
    if series:
        text = (
            "The same cosine with half of the tokens masked. Masks enter all alike, so they are shown apart from other "
            "positions."
        )
        yield _profiles(found, "What each block changes, half of the text masked", text, series, "cosine", 1)


def _by_distance(found: Study) -> Section:
    measured = []
    for name, own in found.models.items():
        curve = mean_curve(own.reading.clean.similarity)
        measured.append(_over_texts(name, "cosine", "distance", range(1, len(curve) + 1), curve))
    text = (
        "Cosine of two positions of a text by their distance in tokens, averaged over layers, on text without masks. A "
        "model with a recency bias has a line that falls steeply."
    )
    return Section("Similarity by distance", text, bands(measured), *statistics_table(measured))


def _accuracies(found: Study) -> Section:
    series, rows = [], []
    for name, own in found.models.items():
        before, effects = own.answers["whole"].correct, []
        for change, answers in own.answers.items():
            effect = kept_share(before, answers.correct)
            n, solved = len(before), sum(answers.correct)
            words = own.changes[change].words
            rows.append([name, _label(found, change), words, solved / n, effect.value, effect.low, effect.high, n])
            if change == "whole":
                # What is kept of the model as it is, is all of it, whatever the problems.
                rows[-1][5:7] = [nan, nan]
            rows[-1] += [answers.repetition, " ⏎ ".join(answers.examples[0].splitlines()[:2])]
            if change != "whole":
                effects.append((_label(found, change), effect))
        series.append(_estimated(name, "accuracy kept", effects))
    columns = [
        "model",
        "change",
        "what",
        "accuracy",
        "kept",
        "low",
        "high",
        "problems",
        "repeated 4-grams",
        "an answer",
    ]
    text = f"Accuracy on {found.task} after a change, as a share of the accuracy without it. {_drawn(found, series)}"
    return Section("What is kept of the accuracy", text, points(series, 1), columns, rows)


def _losses(found: Study) -> Section:
    series, rows = [], []
    for name, own in found.models.items():
        changes = [change for change in own.losses if change != "whole"]
        effects = [(_label(found, change), loss_change(found, name, change)) for change in changes]
        whole = float(np.mean(own.losses["whole"].losses))
        rows.append([name, _label(found, "whole"), "as it is", whole, *[float("nan")] * 3, 0.0])
        for change, (label, effect) in zip(changes, effects, strict=True):
            mean, saved = float(np.mean(own.losses[change].losses)), own.losses[change].flops_saved
            words = own.changes[change].words
            rows.append([name, label, words, mean, effect.value, effect.low, effect.high, saved])
        series.append(_estimated(name, "increase of the loss", effects))
    columns = ["model", "change", "what", "loss", "increase", "low", "high", "FLOPs saved"]
    text = (
        "How much the loss of text rises by a change, in nats a token: next-token, or the denoising bound. The share "
        "of FLOPs that is saved is counted, head and embedding included; papers count skipped blocks over all blocks. "
        + _drawn(found, series)
    )
    return Section("What it costs in loss", text, points(series, 0), columns, rows)


def _drawn(found: Study, series: Sequence[Statistic]) -> str:
    """What the changes are that a figure shows."""
    shown = {change for own in series for change in own.places}
    labels = {name: _label(found, name) for name in _CHANGES}
    words = [f"{label}: {_CHANGES[name]}" for name, label in labels.items() if label in shown]
    said = "; ".join(words).format(apart=found.skipped("apart"))
    return f"{said[:1].upper()}{said[1:]}."


def _disruption(found: Study) -> Iterator[Section]:
    measured = []
    for name, own in found.models.items():
        if own.disruption is not None:
            curve = own.disruption.at(0.5)
            measured.append(_over_texts(name, "cosine", "layer", range(len(curve)), curve))
    if not measured:
        return
    text = (
        f"How far skipping {found.skipped('apart')}, no two neighbours, moves what leaves each block: cosine "
        "with and without, on the same canvas of the model's own decoding with half of the tokens decided, at the "
        "positions whose logits decide the tokens to come. The same point for both kinds of model, so that they can be "
        "compared."
    )
    yield Section("The same skip at a matched point", text, bands(_on_one_axis(measured)), *statistics_table(measured))


def _thirds(found: Study) -> Iterator[Section]:
    series, rows = [], []
    for name, own in found.models.items():
        if own.thirds is None:
            continue
        effects = [(third, kept_share(solved.before, solved.after)) for third, solved in own.thirds.kept.items()]
        series.append(_estimated(name, "accuracy kept", effects))
        rows += [[name, third, e.value, e.low, e.high, e.n, " ".join(own.thirds.notes)] for third, e in effects]
    if series:
        text = (
            f"What is kept of the accuracy where {found.skipped('apart')}, no two neighbours, are skipped in "
            "one third of decoding only. Both kinds of model compute the whole sequence at every step, so that a skip "
            "means the same."
        )
        columns = ["model", "third", "kept", "low", "high", "problems", "what a third is"]
        yield Section("The same skip in one third of decoding", text, points(series, 1), columns, rows)


def _compressed(found: Study) -> Iterator[Section]:
    series, rows = [], []
    for name, own in found.models.items():
        before, effects = own.answers["whole"].correct, []
        for recipe, small in own.compressed.items():
            effect, loss = kept_share(before, small.correct), loss_compressed(found, name, recipe)
            n, solved = len(before), sum(small.correct)
            rows.append([name, recipe, small.words, len(small.left_out), solved / n, effect.value, effect.low])
            rows[-1] += [effect.high, n, loss.value, loss.low, loss.high]
            effects.append((recipe, effect))
        if effects:
            series.append(_estimated(name, "accuracy kept", effects))
    if series:
        columns = ["model", "recipe", "what", "matrices left out", "accuracy", "kept", "low", "high", "problems"]
        columns += ["increase of the loss", "loss low", "loss high"]
        text = (
            f"Accuracy on {found.task} with fewer bits or weights, as a share of the accuracy without. 3 bits: GPTQ in "
            "groups of 64; half: Wanda with half of all weights gone, evenly spread, or 70 % to 30 % from the first to "
            "the last layer, or the reverse."
        )
        yield Section("What is kept with fewer bits and weights", text, points(series, 1), columns, rows)


def _spectra(found: Study) -> Iterator[Section]:
    series = [_Line(name, own.spectra.alpha.T) for name, own in found.models.items() if own.spectra is not None]
    if series:
        text = (
            "Exponent of the tail of the spectra of the weights, averaged over the matrices of a block, with intervals "
            "over matrices: the smaller, the heavier the tail and the further trained."
        )
        yield _profiles(found, "Spectra of the weights", text, series, "alpha")


def _seeds(found: Study) -> Iterator[Section]:
    changed = ("no outlier", "no largest")
    removed = {
        name: [channel for key in changed if key in own.changes for channel in own.changes[key].channels]
        for name, own in found.models.items()
    }
    section = seeds_section(removed)
    if section is not None and set(found.models) & set(TRIO):
        yield section


def _behind(rows: Sequence[Row]) -> Section:
    table = []
    for row in rows:
        for cell in row.cells:
            effect = cell.effect
            table.append([row.question, cell.model, margin(cell), effect.value, effect.low, effect.high, side(cell)])
            for words, other in effect.beside:
                table.append([row.question, cell.model, words, other.value, other.low, other.high, ""])
    columns = ["question", "model", "what", "value", "low", "high", "verdict"]
    text = (
        "Every effect of the summary, with further numbers that a reader needs to judge it. A verdict is about what is "
        "claimed of the model, not an answer to the question; where no paper claims anything, it says on which side of "
        "the bar the effect lies."
    )
    return Section("The numbers behind the summary", text, None, columns, table)

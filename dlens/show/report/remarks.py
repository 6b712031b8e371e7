"""What in a report may look contradictory, and what it means: a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan

import numpy as np
from jaxtyping import Float

from dlens.findings.scores.estimate import Estimate, kept_share, mean_of
from dlens.findings.study.estimates import KEPT, blocks_words, loss_change
from dlens.findings.study.results import ModelStudy
from dlens.findings.study.study import Study
from dlens.show.report.seeds import SEEDS_APART, SEEDS_TASK, kept_apart, kept_in_a_row
from dlens.show.report.words import number

__all__ = ["remarks", "reversed_by_accuracy"]

_SKIPS = {"apart": "no two neighbours", "early run": "consecutive and early"}
# A line jumps where one block moves it by as much of its whole range, in all likelihood, and the range is worth a word.
_JUMP, _RANGE = 0.5, 0.05


def remarks(found: Study) -> list[str]:
    """Sentences on loss that rises while the accuracy stays or says the reverse, on other orders, blocks and jumps."""
    return [
        *_dearer_but_solved(found),
        *_other_end(found),
        *_other_order(found),
        *_other_blocks(found),
        *_jumps(found),
    ]


def reversed_by_accuracy(found: Study) -> list[str]:
    """The models of which the accuracy says the reverse of the loss on early and late blocks."""
    return [name for name in found.models if _ends(found, name)]


def _dearer_but_solved(found: Study) -> Iterator[str]:
    """The loss rises, and as many problems are solved."""
    for name, own in found.models.items():
        said = [
            f"{own.changes[change].words} (rise {number(loss)}; {_stays(own, change, kept)})"
            for change, (loss, kept) in _effects(found, name, own).items()
            if loss.low > 0 and kept.value >= KEPT
        ]
        if said:
            yield (
                f"{name}: the loss of text rises while problems of {found.task} stay solved with {'; '.join(said)}. "
                f"Loss counts the probability of every token of running text; accuracy asks only whether decoded "
                f"answers are right, which the likeliest tokens decide. "
                f"A model can become less sure without becoming wrong."
            )


def _stays(own: ModelStudy, change: str, kept: Estimate) -> str:
    """How many problems stay solved, and how large a loss of accuracy the interval still has room for."""
    before, after = own.answers["whole"].correct, own.answers[change].correct
    stay, more = sum(map(min, before, after)), sum(b < a for b, a in zip(before, after, strict=True))
    words = f"{stay} of {sum(before)} stay solved" + (f", {more} more are" if more else "")
    room = f", which leaves room for a loss of {100 * (1 - kept.low):.0f} % of the accuracy" if kept.low < 1 else ""
    return words + room


def _other_end(found: Study) -> Iterator[str]:
    """By loss early blocks are the dearer to skip, by accuracy late ones, or the reverse."""
    for name, own in found.models.items():
        if said := _ends(found, name):
            loss = loss_change(found, name, "late run", "early run")
            early, late = (", ".join(map(str, own.changes[f"{part} run"].layers)) for part in ("early", "late"))
            dearer, cheaper = ("early", "late") if loss.high < 0 else ("late", "early")
            yield (
                f"{name}: by the loss of text {dearer} blocks cost more than {cheaper} ones (late minus early "
                f"{number(loss)} nats a token; early are {early}, late {late}), and by the accuracy on {found.task} "
                f"less: kept is {'; '.join(said)}. The verdict is about the loss."
            )


def _ends(found: Study, name: str) -> list[str]:
    """Where the accuracy says the reverse of the loss: in this report, in the table of training seeds, or nowhere."""
    own, loss = found.models[name], loss_change(found, name, "late run", "early run")
    pairs = {f"in this report ({len(own.answers['whole'].correct)} problems)": _kept_here(own)}
    if found.task == SEEDS_TASK and (shipped := kept_in_a_row(name)):
        pairs[f"in the table of training seeds ({shipped[0].n} problems, another sampler)"] = shipped
    return [
        f"{number(early)} without early ones and {number(late)} without late ones {where}"
        for where, (early, late) in pairs.items()
        if (loss.high < 0 and early.low > late.high) or (loss.low > 0 and early.high < late.low)
    ]


def _other_blocks(found: Study) -> Iterator[str]:
    """As many blocks, no two neighbours, keep another share here than in the table of training seeds."""
    said = []
    for name, own in found.models.items():
        shipped = kept_apart(name) if found.task == SEEDS_TASK else None
        layers = own.changes["apart"].layers
        if shipped is None or "apart" not in own.answers or layers == SEEDS_APART:
            continue
        here = kept_share(own.answers["whole"].correct, own.answers["apart"].correct)
        if here.low > shipped.high or here.high < shipped.low:
            said.append(f"{name} keeps {number(here)} without {blocks_words(layers)} and {number(shipped)} there")
    if said:
        yield (
            f"“No two neighbours” is not one skip: in this report blocks are chosen for each model, in the table of "
            f"training seeds they are {blocks_words(SEEDS_APART)}. {'; '.join(said)}. The table was also made with "
            f"another sampler and another number of problems."
        )


def _kept_here(own: ModelStudy) -> tuple[Estimate, Estimate]:
    """What is kept without early blocks and without late ones; nothing where one of them was not answered."""
    before = own.answers["whole"].correct
    early, late = (
        kept_share(before, own.answers[run].correct) if run in own.answers else Estimate(nan, nan, nan)
        for run in ("early run", "late run")
    )
    return early, late


def _other_order(found: Study) -> Iterator[str]:
    """One model pays more loss than another for the same skip, and keeps more accuracy."""
    for change, words in _SKIPS.items():
        effects = {name: _effects(found, name, own).get(change) for name, own in found.models.items()}
        known = {name: pair for name, pair in effects.items() if pair is not None}
        said = [
            f"{a} pays more than {' and '.join(others)} and keeps more"
            for a in known
            if (others := [b for b in known if _dearer_and_better(known[a], known[b])])
        ]
        if said:
            numbers = "; ".join(
                f"{name} {number(loss)} nats a token, kept {number(kept)}" for name, (loss, kept) in known.items()
            )
            yield (
                f"Skipping {found.skipped(change)}, {words}, ranks the models in one way by the rise of the loss of "
                f"text and in another by the accuracy that is kept: {'; '.join(said)} ({numbers}). Losses of unlike "
                f"objectives are on unlike scales, and errors of decoding add up over steps, which the loss of a given "
                f"text does not see. Where intervals overlap, other texts and problems may rank them otherwise."
            )


def _dearer_and_better(own: tuple[Estimate, Estimate], other: tuple[Estimate, Estimate]) -> bool:
    return own[0].value > other[0].value and own[1].value > other[1].value


def _effects(found: Study, name: str, own: ModelStudy) -> dict[str, tuple[Estimate, Estimate]]:
    """By change the rise of the loss and what is kept of the accuracy, where both are known."""
    before = own.answers["whole"].correct
    changes = [change for change in own.answers if change != "whole" and change in own.losses]
    return {
        change: (loss_change(found, name, change), kept_share(before, own.answers[change].correct))
        for change in changes
    }


def _jumps(found: Study) -> Iterator[str]:
    """One block moves the share of the largest channel by half of its range and more."""
    for name, own in found.models.items():
        share = own.reading.clean.share
        line = np.nanmean(share, 0)
        place = _jump(line)
        if place and _same_way(mean_of(share[:, place] - share[:, place - 1])):
            yield (
                f"The energy share of channel {own.reading.channel} of {name} jumps from "
                f"{_written(line[place - 1])} after layer {place - 1} to {_written(line[place])} after layer {place}: "
                f"one block writes most of it, which a mean over a third of the blocks hides. Whether another run of "
                f"training has it there cannot be said from one."
            )


def _jump(line: Float[np.ndarray, " layer"]) -> int:
    """The layer at which a line jumps, after layer 1 and before the last; 0 where it does not."""
    later = line[1:-1]
    if len(later) < 3:
        return 0
    steps, spread = np.abs(np.diff(later)), float(np.ptp(later))
    return int(steps.argmax()) + 2 if spread > _RANGE and steps.max() > _JUMP * spread else 0


def _same_way(step: Estimate) -> bool:
    """Whether the whole interval of a step over texts is up, or down."""
    return step.low > 0 or step.high < 0


def _written(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")

"""What in a report may look contradictory, and what it means: a sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from jaxtyping import Float

from dlens.findings.scores.estimate import Estimate, kept_share
from dlens.findings.study.estimates import loss_change
from dlens.findings.study.results import ModelStudy
from dlens.findings.study.study import Study
from dlens.show.report.words import number

__all__ = ["remarks"]

_KEPT = 0.95
# A line jumps where one block moves it by as much of its whole range, and the range is worth a word.
_JUMP, _RANGE = 0.5, 0.05


def remarks(found: Study) -> list[str]:
    """Sentences on loss that rises while the accuracy stays, on models in another order by loss, and on jumps."""
    return [*_dearer_but_solved(found), *_other_order(found), *_jumps(found)]


def _dearer_but_solved(found: Study) -> Iterator[str]:
    """The loss rises, and as many problems are solved."""
    for name, own in found.models.items():
        said = [
            f"{own.changes[change].words} (rise {number(loss)}, kept {number(kept)})"
            for change, (loss, kept) in _effects(found, name, own).items()
            if loss.low > 0 and kept.value >= _KEPT
        ]
        if said:
            yield (
                f"{name}: the loss of text rises and the accuracy on {found.task} stays with {'; '.join(said)}. Loss "
                f"counts the probability of every token of running text; accuracy asks only whether decoded answers "
                f"are right, which the likeliest tokens decide. A model can become less sure without becoming wrong."
            )


def _other_order(found: Study) -> Iterator[str]:
    """One model pays more loss than another for the same skip, and keeps more accuracy."""
    effects = {name: _effects(found, name, own).get("apart") for name, own in found.models.items()}
    known = {name: pair for name, pair in effects.items() if pair is not None}
    for a, b in permutations(known, 2):
        (loss_a, kept_a), (loss_b, kept_b) = known[a], known[b]
        if loss_a.low > loss_b.high and kept_a.value > kept_b.value:
            yield (
                f"Skipping {found.skipped('apart')}, no two neighbours, raises the loss of {a} more than that of {b} "
                f"({number(loss_a)} against {number(loss_b)} nats a token), and {a} keeps more of its accuracy "
                f"({number(kept_a)} against {number(kept_b)}). Losses of unlike objectives are on unlike scales, and "
                f"errors of decoding add up over steps, which the loss of a given text does not see."
            )


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
        line = np.nanmean(own.reading.clean.share, 0)
        place = _jump(line)
        if place:
            yield (
                f"The energy share of {name}'s largest channel jumps from {_written(line[place - 1])} after layer "
                f"{place - 1} to {_written(line[place])} after layer {place}: one block writes most of it, which a "
                f"mean over a third of the blocks hides. Whether another run of training has it there cannot be said "
                f"from one."
            )


def _jump(line: Float[np.ndarray, " layer"]) -> int:
    """The layer at which a line jumps, after layer 1 and before the last; 0 where it does not."""
    later = line[1:-1]
    if len(later) < 3:
        return 0
    steps, spread = np.abs(np.diff(later)), float(np.ptp(later))
    return int(steps.argmax()) + 2 if spread > _RANGE and steps.max() > _JUMP * spread else 0


def _written(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")

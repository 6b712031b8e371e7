"""What a verdict alone would not tell: sentences beside a cell, made of what a study holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dlens.findings.layers.compare import third
from dlens.findings.skipping.plan_skip import PAPER_THRESHOLD
from dlens.findings.study.bars import Bar, Verdict
from dlens.findings.study.estimates import KEPT, kept, loss_change
from dlens.findings.study.results import ModelKind
from dlens.findings.study.study import Study

__all__ = ["MIRRORED", "PLACED", "Aside", "answers_alone", "end_of_the_line", "one_early_block", "one_number"]

Aside = Callable[[Study, str, Bar, Verdict], str]
"""What is said of one model beside a verdict; empty where nothing is to say."""
MIRRORED = "one number with its sign turned"
PLACED = "an end of the line on which models are placed"


def one_number(study: Study, name: str) -> str:
    """Of a difference to the other kind: with one model of each, both have the same number, one with a minus."""
    diffusion, ar = _count(study, "diffusion"), _count(study, "ar")
    return MIRRORED if study.models[name].kind != "ar-init" and diffusion == ar == 1 else ""


def end_of_the_line(study: Study, name: str) -> str:
    """Of a place between both kinds: the only model of its kind is the end of the line, as it is on other texts."""
    kind = study.models[name].kind
    ends = _count(study, "diffusion") and _count(study, "ar")
    return PLACED if kind != "ar-init" and ends and _count(study, kind) == 1 else ""


def _count(study: Study, kind: ModelKind) -> int:
    return sum(model.kind == kind for model in study.models.values())


def one_early_block(study: Study, name: str, bar: Bar, verdict: Verdict) -> str:
    """Which early block alone keeps the cosine of early blocks from being as far above that of late ones as claimed.

    Empty where the claim holds or is another, where no block alone does, or where less than half of all blocks in a row
    are as similar as is reported of LLaDA-8B.
    """
    cosine = study.models[name].reading.clean.cosine.mean(0)
    n = third(len(cosine))
    early, late = cosine[1 : 1 + n], cosine[-n:].mean()
    lowest = int(early.argmin())
    rest = np.delete(early, lowest)
    runs = _runs([layer for layer in range(1, len(cosine)) if cosine[layer] > PAPER_THRESHOLD])
    longest = max((end - start + 1 for start, end in runs), default=0)
    if bar.sign == "<" or verdict == "holds" or n < 2 or 2 * longest < len(cosine) or rest.mean() - late <= bar.margin:
        return ""
    return (
        f"block {lowest + 1} alone, of a cosine of {early[lowest]:.3f}, keeps it below the bar: without that block the "
        f"difference is {rest.mean() - late:.3f}. Blocks {_listed(runs)} of {len(cosine)} are above "
        f"{PAPER_THRESHOLD:g}: nearly the shape that is reported"
    )


def _runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of layers in a row."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    return [(start, next(end for end in layers if end >= start and end + 1 not in layers)) for start in starts]


def _listed(runs: Sequence[tuple[int, int]]) -> str:
    """In words, such as "2 to 11 and 13"."""
    *first, last = [f"{start} to {end}" if end > start else f"{start}" for start, end in runs]
    return f"{', '.join(first)} and {last}" if first else last


def answers_alone(study: Study, name: str, bar: Bar, verdict: Verdict) -> str:
    """That nothing but the answers stands where they are kept and the loss of text rises."""
    model, said = study.models[name], []
    for change in ("no outlier", "no largest"):
        if change not in model.answers or change not in model.losses:
            continue
        rise, left = loss_change(study, name, change), kept(change)(study, name)
        if rise.low > 0 and left.value >= KEPT:
            channels = " and ".join(map(str, model.changes[change].channels))
            without = f"without channel {channels} " if channels else ""
            stand = f"only the answers to these {left.n} problems stand"
            said.append(f"{without}{stand}: the loss of running text rises by {rise.value:.2f}")
    return "; ".join(said)

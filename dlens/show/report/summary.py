"""The table on top of a report, and the paragraphs at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from dlens.caches.cache import Cache
from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import LEVEL
from dlens.findings.study.asides import MIRRORED, PLACED
from dlens.findings.study.claims import PAPERS, Cell, Row
from dlens.findings.study.parts import NEW_TOKENS, PROMPT_TOKENS, PROMPTS, READING_RATES
from dlens.findings.study.results import ModelKind
from dlens.findings.study.study import Study
from dlens.html import rendered
from dlens.show.figures.captions import counted
from dlens.show.report.matrix import row_anchor
from dlens.show.report.published import ADDRESSES, UNTESTED
from dlens.show.report.words import CLASSES, claimed_word, colour_of, margin, number
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.probes.outlier import CALIBRATION_POSITIONS, CALIBRATION_ROWS

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["cited", "lead", "method", "number", "summary"]

# A model of each kind.
_BOTH = 2
# As many have room for their sentences beside each other.
_SIDE_BY_SIDE = 4
_OF: Mapping[ModelKind, str] = {"diffusion": "native diffusion", "ar": "AR", "ar-init": "AR-initialised"}


def lead(found: Study, rows: Sequence[Row]) -> str:
    """What was asked, by which papers, how it came out, and how much was measured."""
    papers = " and ".join(f"“{title}” ({number})" for number, title in PAPERS.items())
    return (
        f"Two papers compare diffusion and autoregressive language models layer by layer: {papers}. Here "
        f"{len(rows)} questions that they answer are asked of {counted(len(found.models), 'model')}. "
        f"{_outcome([cell for row in rows for cell in row.cells])} {''.join(f'{line} ' for line in _tied(rows))}"
        f"{_size(found)}"
    )


def _outcome(cells: Sequence[Cell]) -> str:
    claimed = [cell.verdict for cell in cells if cell.claimed]
    classes = Counter(claimed)
    holds, fails, undecided = (classes[verdict] for verdict in CLASSES)
    others = len(cells) - len(claimed)
    besides = f" {counted(others, 'more cell')} {'is' if others == 1 else 'are'} about what the papers do not claim."
    return (
        f"Of {counted(len(claimed), 'verdict')} on what they claim of each kind of model, {holds} "
        f"{'holds' if holds == 1 else 'hold'}, {fails} {'does' if fails == 1 else 'do'} not hold and {undecided} "
        f"{'is' if undecided == 1 else 'are'} undecided.{_inferred(cells)}{besides if others else ''}"
    )


def _inferred(cells: Sequence[Cell]) -> str:
    n = sum(bool(cell.inferred) for cell in cells)
    verdicts = sum(cell.claimed for cell in cells)
    return f" {n} of these {verdicts} verdicts {'is' if n == 1 else 'are'} on what follows from other claims." * bool(n)


def _tied(rows: Sequence[Row]) -> list[str]:
    """Which verdicts are no findings of their own, a sentence for each question."""
    lines = []
    for row in rows:
        mirrored = [cell for cell in row.cells if cell.tied == MIRRORED and cell.verdict != "undecided"]
        # What is so by construction cannot be against the claim by construction.
        placed = sum(cell.tied == PLACED and cell.verdict == "holds" for cell in row.cells)
        if len(mirrored) == _BOTH:
            lines.append(f"Two verdicts on “{row.question}” are one number with its sign turned.")
        if placed == _BOTH:
            lines.append(f"Two verdicts on “{row.question}” are trivial, as the two models define the ends.")
        elif placed:
            lines.append(f"One verdict on “{row.question}” is trivial, as the model defines an end.")
    return lines


def _size(found: Study) -> str:
    settings = found.settings
    much = f"{counted(_n_texts(found), 'text')} and {counted(settings.problems, 'problem')} of {found.task}"
    much += f", decoded by diffusion models with {settings.cache}" if isinstance(settings.cache, Cache) else ""
    if settings.deep:
        return f"Measured on {much}."
    return f"This is a quick run: {much}; run without --quick for narrower intervals."


def summary(asked: str, rows: Sequence[Row], odd: Sequence[str] = (), example: str = "") -> Markup:
    """Who was asked, then a row a question and a cell a model: what is claimed of it, the verdict, the effect.

    Args:
        asked: who.
        rows: what a study states.
        odd: what may look contradictory, a sentence each.
        example: HTML of an example, between these and the rows.
    """
    shown = {"says": _says, "colour": colour_of, "margin": margin, "number": number, "about": _about, "beside": _beside}
    shown |= {"unit": _unit, "untested": [(words, paper, ADDRESSES[paper]) for paper, words in UNTESTED]}
    given = {"asked": asked, "rows": rows, "remarks": odd, "example": example, "anchor": row_anchor}
    return rendered("show/report/summary.html.j2", many=len(rows[0].cells) > _SIDE_BY_SIDE, **given, **shown)


def cited(found: Study) -> Markup:
    """How a report is cited, with what it tests."""
    papers = [(number, title, ADDRESSES[number]) for number, title in PAPERS.items()]
    return rendered("show/report/cite.html.j2", version=found.versions.get("dlens", ""), papers=papers)


def _says(cell: Cell) -> str:
    return f"{claimed_word(cell)} of {_OF[cell.kind]}: {cell.says}" if cell.claimed else cell.says


def _unit(cell: Cell) -> str:
    """In what an effect is counted, where there is one."""
    return f", {cell.unit}" if isfinite(cell.effect.value) else ""


def _about(effect: Estimate) -> list[str]:
    lines = [effect.why, *(f"{words}: {number(own)}" for words, own in effect.shown)]
    return [line for line in lines if line]


def _beside(cell: Cell) -> list[str]:
    reported = f"reported: {cell.reported}" if cell.reported else ""
    inferred = f"inferred from {cell.inferred}" if cell.inferred else ""
    return [line for line in (cell.limit, cell.more, reported, inferred, *cell.asides) if line]


def method(found: Study) -> str:
    """How everything was measured, a paragraph a line."""
    settings = found.settings
    noise = ", ".join(f"{rate:.0%}" for rate in READING_RATES)
    estimators = "; ".join(dict.fromkeys(model.losses["whole"].estimator for model in found.models.values()))
    changes = " ".join(
        f"{name}: {'; '.join(change.words for key, change in model.changes.items() if key != 'whole')}."
        for name, model in found.models.items()
    )
    versions = ", ".join(f"{package} {version}" for package, version in found.versions.items())
    lines = [
        f"Texts: {_n_texts(found)} of the {len(calibration_texts())} that ship with dlens, stories, word problems and "
        f"code, the same for all models, each read in a forward of its own, clean, and by diffusion models also with "
        f"{noise} of the tokens masked at random: masks enter all alike, so they are shown apart. Layers are read at "
        f"resid_pre and resid_post, never at the output of the final norm. Cosine per token, averaged over positions; "
        f"recency from the cosine of two positions of a text, not from attention; the largest channel is the one with "
        f"the largest share of the energy of the first {CALIBRATION_POSITIONS} tokens of {CALIBRATION_ROWS} of the "
        f"{len(calibration_texts())} texts together: of early layers over the first third of the blocks, else over all "
        f"blocks but the last.",
        f"Loss: {estimators}; the same masks for every change.",
        f"Accuracy: {settings.problems} test problems of {found.task}, the same for every model and change, greedy; "
        f"diffusion models with LLaDA's sampler, at half as many steps as tokens. A share of nothing is not "
        f"measurable: where a model solves no problem as it is, there is no number.",
        *([_cached(settings.cache)] if isinstance(settings.cache, Cache) else []),
        *([_deep(found)] if settings.deep else []),
        f"Intervals: {LEVEL:.0%}. Shares that are kept: the score of Nam and Blackwelder for answers to the same "
        f"problems, with a continuity correction; a difference of two of them by the method of variance estimates "
        f"recovery. Means over texts: Student's t, corrected for skewness by Hall's transformation. Places between two "
        f"profiles: jackknife over texts. They are taken to hold in 95 of 100 cases; simulations in dlens's tests say "
        f"how often they do: means over 8 to 64 normal, uniform or exponential values in 93 to 98, kept shares of 12 "
        f"to 256 problems in 93 or more at each of the ratios tried, places between profiles of 4 or 12 texts in 92 or "
        f"more. Of other data, such as texts of which few differ much from the rest, they say nothing. Of so few texts "
        f"as 8 an end of an interval may lie beyond all the values that it is made of.",
        "Figures after “reported” are of the papers' models, problems and samplers, as others who wrote of the papers "
        "give them.",
        "Kinds: a diffusion model whose logits are shifted by one is taken to have started from an autoregressive "
        "model, as Dream has, unless the kind was given. How the papers measured is not known in all details: claims "
        "are put as dlens measures them, and arXiv 2605.06366 does not say how it prunes the channel.",
        f"Changes. {changes}",
        f"Seed {settings.seed}, of problems, masks and the random channel. {versions}. "
        f"{found.reused} parts were read from an earlier run with the same code, weights and settings.",
    ]
    return "\n".join(lines)


def _cached(cache: Cache) -> str:
    numbers = "leaves the numbers as they are" if cache.exact else "is an approximation"
    return (
        f"Cache: diffusion models decode answers, and the canvases of matched points, with {cache}, which {numbers}. "
        f"Texts are read without it; where blocks are skipped in one third of decoding only, it is decoded without, as "
        f"the other steps would find no keys and values there."
    )


def _deep(found: Study) -> str:
    prompts = min(PROMPTS, _n_texts(found))
    return (
        f"Matched points: the model as it is continues the first {PROMPT_TOKENS} tokens of {counted(prompts, 'text')} "
        f"by {NEW_TOKENS} tokens; where half of these are decided, its canvas is read with and without the skip. "
        f"Thirds: {found.settings.n_thirds} of the problems, thirds of the planned steps of a diffusion model, and of "
        f"an autoregressive model's own answer."
    )


def _n_texts(found: Study) -> int:
    return min(found.settings.texts, len(calibration_texts()))

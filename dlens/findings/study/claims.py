"""What two papers claim of layers and channels, as inequalities that a study decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, final

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study import estimates
from dlens.findings.study.results import ModelKind
from dlens.findings.study.study import Study

__all__ = ["CLAIMS", "PAPERS", "Cell", "Claim", "Row", "Verdict", "claims", "verdict_of"]

Verdict = Literal["holds", "does not hold", "undecided"]
SKIPPING = "arXiv 2603.07475"
COLLAPSE = "arXiv 2605.06366"
PAPERS = {
    SKIPPING: "A Comparative Analysis of Layer-wise Representational Capacity in AR and Diffusion LLMs",
    COLLAPSE: "Layer Collapse in Diffusion Language Models",
}
UNCLAIMED = "no claim; judged as native diffusion"


@final
@dataclass(frozen=True)
class Bar:
    """What a paper says of one kind of model, as an inequality.

    Args:
        words: what it says.
        sign: on which side of the margin the effect is to lie.
        margin: in the unit of the effect.
        claimed: whether it says so; False where it says nothing of this kind, and another's bar is taken.
    """

    words: str
    sign: Literal["<", ">"]
    margin: float
    claimed: bool = True

    def __str__(self) -> str:
        return f"{self.sign} {self.margin:g}"


@final
@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        title: in a few words.
        question: what is asked of every kind of model; the papers' answers differ by kind.
        source: which paper.
        effect: what is measured.
        bars: for each kind of model what the paper says of it, as an answer to the question.
        measure: the effect of one model of a study.
    """

    title: str
    question: str
    source: str
    effect: str
    bars: Mapping[ModelKind, Bar]
    measure: Callable[[Study, str], Estimate]


@final
@dataclass(frozen=True)
class Cell:
    """What a study says of a claim, for one model."""

    model: str
    kind: ModelKind
    says: str
    bar: str
    effect: Estimate
    verdict: Verdict
    claimed: bool = True

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return vars(self) | {"effect": self.effect.to_json()}


@final
@dataclass(frozen=True)
class Row:
    """One claim with every model of a study."""

    title: str
    source: str
    effect: str
    cells: tuple[Cell, ...]
    question: str

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return vars(self) | {"cells": tuple(cell.to_json() for cell in self.cells)}


def verdict_of(effect: Estimate, bar: Bar) -> Verdict:
    """Whether the whole 95 % interval lies on the claimed side of the margin, on the other, or on both.

    Examples:
        >>> bar = Bar("", ">", 0.9)
        >>> [verdict_of(Estimate(0.95, low, high), bar) for low, high in ((0.92, 1.0), (0.8, 1.0), (0.5, 0.8))]
        ['holds', 'undecided', 'does not hold']
    """
    if not (isfinite(effect.low) and isfinite(effect.high)):
        return "undecided"
    above, below = effect.low > bar.margin, effect.high < bar.margin
    if above or below:
        return "holds" if above == (bar.sign == ">") else "does not hold"
    return "undecided"


def claims(found: Study) -> tuple[Row, ...]:
    """Every claim with the numbers and the verdict for every model of a study."""
    return tuple(_row(claim, found) for claim in CLAIMS)


def _row(claim: Claim, found: Study) -> Row:
    cells = []
    for name, model in found.models.items():
        bar, effect = claim.bars[model.kind], claim.measure(found, name)
        cells.append(Cell(name, model.kind, bar.words, str(bar), effect, verdict_of(effect, bar), bar.claimed))
    return Row(claim.title, claim.source, claim.effect, tuple(cells), claim.question)


CLAIMS: Sequence[Claim] = (
    Claim(
        "Early layers are redundant",
        "Are early layers redundant?",
        SKIPPING,
        "cosine of what enters with what leaves a block: mean over the first third of depth (without block 0) minus "
        "mean over the last third, on text without masks",
        {
            "diffusion": Bar("yes, they change the stream less than late ones", ">", 0.02),
            "ar": Bar("no, similarity is lower and more even, or larger late", "<", 0.02),
            "ar-init": Bar("no, as the autoregressive model it started from", "<", 0.02),
        },
        estimates.early_redundancy,
    ),
    Claim(
        "Recency bias",
        "How strong is recency bias?",
        SKIPPING,
        "recency index, averaged over layers: P(1) minus the mean of P(d) over d of half the text and more, where P(d) "
        "is the mean cosine of two positions d tokens apart; the model's minus that of the other kind on the same "
        "texts (diffusion against AR, AR and AR-initialised against diffusion)",
        {
            "diffusion": Bar("weaker than in an autoregressive model", "<", 0.0),
            "ar": Bar("stronger than in a diffusion model", ">", 0.0),
            "ar-init": Bar("stronger than in a diffusion model, as in autoregressive ones", ">", 0.0),
        },
        estimates.recency,
    ),
    Claim(
        "AR-initialised models keep AR dynamics",
        "Are the layer dynamics those of an autoregressive model?",
        SKIPPING,
        "where the depth profile of the cosine lies between that of the native diffusion model (0) and that of the "
        "autoregressive model (1); the line between them is from every other text, the models from the rest; a model "
        "that is the only one of its kind is compared with itself on other texts",
        {
            "diffusion": Bar("no, nearer to native diffusion", "<", 0.5),
            "ar": Bar("yes, nearer to the autoregressive model", ">", 0.5),
            "ar-init": Bar("yes, nearer to the autoregressive model", ">", 0.5),
        },
        estimates.dynamics,
    ),
    Claim(
        "Skipping 18.75 % of the blocks, no two neighbours",
        "Skipping 18.75 % of the blocks (3 of 16), no two neighbours: is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without",
        {
            "diffusion": Bar("yes, more than 90 %", ">", 0.9),
            "ar": Bar("no, it collapses", "<", 0.9),
            "ar-init": Bar("no, less is kept than in native diffusion", "<", 0.9),
        },
        estimates.kept("apart"),
    ),
    Claim(
        "Skipping 18.75 % of the blocks, consecutive and early",
        "Skipping 18.75 % of the blocks (3 of 16), consecutive and early: is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without",
        {
            "diffusion": Bar("no, less than 90 % where neighbours are skipped", "<", 0.9),
            "ar": Bar("no, it collapses", "<", 0.9),
            "ar-init": Bar("no, it collapses", "<", 0.9),
        },
        estimates.kept("early run"),
    ),
    Claim(
        "Early blocks are easier to skip than late ones",
        "Are early blocks easier to skip than late ones?",
        f"{SKIPPING}, {COLLAPSE}",
        "loss of text without 18.75 % of the blocks (3 of 16) in a row late in depth, minus the loss without as many "
        "early; nats a token",
        {
            "diffusion": Bar("yes, redundancy is strongest early", ">", 0.0),
            "ar": Bar("no, the reverse", "<", 0.0),
            "ar-init": Bar("no, as the autoregressive model it started from", "<", 0.0),
        },
        estimates.late_minus_early,
    ),
    Claim(
        "One channel dominates early layers",
        "Does one channel dominate early layers?",
        COLLAPSE,
        "share of the stream's energy in the largest channel, averaged over what leaves the first third of the blocks, "
        "on text without masks",
        {
            "diffusion": Bar("yes, one super-outlier dominates", ">", 0.25),
            "ar": Bar("no, there is no such channel", "<", 0.25),
            "ar-init": Bar(UNCLAIMED, ">", 0.25, claimed=False),
        },
        estimates.outlier_share,
    ),
    Claim(
        "Without that channel the model breaks",
        "Does the model break without that channel?",
        COLLAPSE,
        "accuracy with the channel set to zero after every block but the last, as a share of the accuracy with it",
        {
            "diffusion": Bar("yes, it falls apart", "<", 0.5),
            "ar": Bar("no, it loses a few per cent", ">", 0.9),
            "ar-init": Bar(UNCLAIMED, "<", 0.5, claimed=False),
        },
        estimates.kept("no outlier"),
    ),
)

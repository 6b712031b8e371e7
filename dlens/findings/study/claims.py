"""What two papers claim of layers and channels, as inequalities that a study decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any, Literal, final

from dlens.findings.scores.estimate import Estimate
from dlens.findings.study import estimates
from dlens.findings.study.estimates import Measure
from dlens.findings.study.results import ModelKind
from dlens.findings.study.study import Study

__all__ = [
    "CLAIMS",
    "COMPRESSION_CLAIMS",
    "PAPERS",
    "Cell",
    "Claim",
    "Row",
    "Verdict",
    "claims",
    "limit_of",
    "verdict_of",
]

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
    """What a paper says of one kind of model, as an inequality that says the same.

    Args:
        words: what it says; {margin}, or {percent} for a share, where the margin is named.
        sign: on which side of the margin the effect is to lie.
        margin: in the unit of the effect.
        ours: whether the margin is dlens's; False where a paper names it, or the sentence is one of more or less.
        claimed: whether it says so; False where it says nothing of this kind, and another's bar is taken.
        reported: figures of the paper's models, as others who wrote of the paper give them.
        measure: the effect, where it is another than that of the claim's other kinds.
    """

    words: str
    sign: Literal["<", ">"]
    margin: float
    ours: bool = False
    claimed: bool = True
    reported: str = ""
    measure: Measure | None = None

    @property
    def says(self) -> str:
        """What it says, with its margin."""
        return self.words.format(margin=f"{self.margin:g}", percent=f"{100 * self.margin:g} %")

    def __str__(self) -> str:
        return f"{self.sign} {self.margin:g}" + (" (our bar)" if self.ours else "")


@final
@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        title: in a few words.
        question: what is asked of every kind of model, of {blocks} of `change`; the papers' answers differ by kind.
        source: which paper.
        effect: what is measured.
        bars: for each kind of model what the paper says of it, as an answer to the question.
        measure: the effect of one model of a study.
        change: whose blocks are meant.
    """

    title: str
    question: str
    source: str
    effect: str
    bars: Mapping[ModelKind, Bar]
    measure: Measure
    change: str = "apart"


@final
@dataclass(frozen=True)
class Cell:
    """What a study says of a claim, for one model.

    Args:
        model, kind: of whom.
        says: what is claimed of this kind.
        bar: the inequality that decides it.
        effect: what was measured.
        verdict: whether the claim holds.
        claimed: whether a paper claims it.
        reported: figures of the paper's models, as others give them.
        limit: why this many problems cannot decide it; empty where they can.
        margin: the number in the bar.
    """

    model: str
    kind: ModelKind
    says: str
    bar: str
    effect: Estimate
    verdict: Verdict
    claimed: bool = True
    reported: str = ""
    limit: str = ""
    margin: float = nan

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; the margin stands in the bar."""
        own = {name: value for name, value in vars(self).items() if name != "margin"}
        return own | {"effect": self.effect.to_json()}


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


def limit_of(effect: Estimate, bar: Bar) -> str:
    """Why no answers to as many problems could put the interval on one side of the margin; empty where some could.

    Examples:
        >>> limit_of(Estimate(1.0, 0.7, 1.4, n=12, extremes=(0.5, 0.7)), Bar("", ">", 0.9))
        'cannot be confirmed with 12 problems, whatever the answers'
    """
    least, most = effect.extremes
    below, above = least >= bar.margin, most <= bar.margin
    if not (below or above):
        return ""
    confirmed = below if bar.sign == "<" else above
    what = "decided" if below and above else "confirmed" if confirmed else "refuted"
    return f"cannot be {what} with {effect.n} problems, whatever the answers"


def claims(found: Study) -> tuple[Row, ...]:
    """Every claim with the numbers and the verdict for every model of a study."""
    asked = (*CLAIMS, *COMPRESSION_CLAIMS) if found.settings.compression else CLAIMS
    return tuple(_row(claim, found) for claim in asked)


def _row(claim: Claim, found: Study) -> Row:
    blocks = found.skipped(claim.change)
    cells = tuple(_cell(claim, found, name) for name in found.models)
    return Row(
        claim.title, claim.source, claim.effect.format(blocks=blocks), cells, claim.question.format(blocks=blocks)
    )


def _cell(claim: Claim, found: Study, name: str) -> Cell:
    kind = found.models[name].kind
    bar = claim.bars[kind]
    effect = (bar.measure or claim.measure)(found, name)
    verdict = verdict_of(effect, bar)
    limit = limit_of(effect, bar) if verdict == "undecided" else ""
    return Cell(name, kind, bar.says, str(bar), effect, verdict, bar.claimed, bar.reported, limit, bar.margin)


COLLAPSES = Bar("no, it collapses: less than {percent} is kept", "<", 0.5, ours=True)
EARLY_LIKE_LATE = Bar(
    "no, the cosine of early blocks is at most {margin} above that of late ones", "<", 0.02, ours=True
)
LATE_EASIER = Bar("no, the reverse: the loss rises less without late blocks than without early ones", "<", 0.0)

CLAIMS: Sequence[Claim] = (
    Claim(
        "Early layers are redundant",
        "Are early layers redundant?",
        SKIPPING,
        "cosine of what enters with what leaves a block: mean over the first third of the blocks after block 0 minus "
        "mean over as many last ones, on text without masks",
        {
            "diffusion": Bar(
                "yes, the cosine of early blocks is more than {margin} above that of late ones",
                ">",
                0.02,
                ours=True,
                reported="LLaDA-8B: above 0.95 in the first 60 to 70 % of depth, lower after it",
            ),
            "ar": replace(EARLY_LIKE_LATE, reported="Qwen2.5-7B: lower than LLaDA-8B, and more even"),
            "ar-init": replace(EARLY_LIKE_LATE, reported="Dream-7B: as Qwen2.5-7B"),
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
            "ar": Bar("stronger than in a native diffusion model", ">", 0.0),
            "ar-init": Bar("stronger than in a native diffusion model", ">", 0.0),
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
        "Skipping {blocks}, no two neighbours: is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without; of AR-initialised models, minus that "
        "share of native diffusion",
        {
            "diffusion": Bar(
                "yes, more than {percent}",
                ">",
                0.9,
                reported="LLaDA-8B, 6 of 32 blocks: 91.8 % of GSM8K, 88.2 % of HumanEval, 102.1 % of MATH500",
            ),
            "ar": replace(COLLAPSES, reported="Qwen2.5-7B, 2 of 28 blocks: 34.9 % of GSM8K, 64.7 % of HumanEval"),
            "ar-init": Bar(
                "no, less is kept than in native diffusion",
                "<",
                0.0,
                reported="Dream-7B, 2 of 28 blocks: 76.8 % of GSM8K, 66.2 % of HumanEval, 81.4 % of MATH500; LLaDA-8B, "
                "2 of 32: 101.3 %, 100 %, 108.5 %",
                measure=estimates.kept_beside_diffusion("apart"),
            ),
        },
        estimates.kept("apart"),
    ),
    Claim(
        "Skipping 18.75 % of the blocks, consecutive and early",
        "Skipping {blocks}, consecutive and early: is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without",
        {
            "diffusion": Bar(
                "no, less than {percent} where neighbours are skipped",
                "<",
                0.9,
                reported="LLaDA-8B, 6 of 32 blocks, neighbours allowed: 75.3 % of GSM8K, 64.7 % of HumanEval",
            ),
            "ar": COLLAPSES,
            "ar-init": replace(COLLAPSES, reported="Dream-7B, 2 of 28 blocks, neighbours allowed: 14.1 % of GSM8K"),
        },
        estimates.kept("early run"),
        change="early run",
    ),
    Claim(
        "Early blocks are easier to skip than late ones",
        "Are early blocks easier to skip than late ones?",
        f"{SKIPPING}, {COLLAPSE}",
        "loss of text without {blocks} in a row late in depth, minus the loss without as many early; nats a token",
        {
            "diffusion": Bar("yes, the loss rises less without early blocks than without late ones", ">", 0.0),
            "ar": LATE_EASIER,
            "ar-init": LATE_EASIER,
        },
        estimates.late_minus_early,
        change="late run",
    ),
    Claim(
        "One channel dominates early layers",
        "Does one channel dominate early layers?",
        COLLAPSE,
        "share of the stream's energy in the largest channel, averaged over what leaves the first third of the blocks, "
        "on text without masks",
        {
            "diffusion": Bar(
                "yes, one channel holds more than {percent} of the energy",
                ">",
                0.25,
                ours=True,
                reported="LLaDA-8B-Base, channel 3848: 63 % after the attention of block 0, 72 % at most, as others "
                "measured",
            ),
            "ar": Bar("no, no channel holds as much as {percent} of it", "<", 0.25, ours=True),
            "ar-init": Bar(UNCLAIMED, ">", 0.25, ours=True, claimed=False),
        },
        estimates.outlier_share,
    ),
    Claim(
        "Without that channel the model breaks",
        "Does the model break without its largest channel?",
        COLLAPSE,
        "accuracy with the channel of the largest share over all blocks but the last set to zero after each of them, "
        "as a share of the accuracy with it",
        {
            "diffusion": Bar(
                "yes, it falls apart: less than {percent} is kept",
                "<",
                0.5,
                ours=True,
                reported="LLaDA-8B: 17 % of GSM8K is kept",
            ),
            "ar": Bar(
                "no, more than {percent} is kept",
                ">",
                0.9,
                ours=True,
                reported="Llama-3.1-8B: 96 % of GSM8K is kept",
            ),
            "ar-init": Bar(UNCLAIMED, "<", 0.5, ours=True, claimed=False),
        },
        estimates.kept("no outlier"),
    ),
)

COMPRESSION_CLAIMS: Sequence[Claim] = (
    Claim(
        "3 bits are enough",
        "Are 3 bits a weight enough?",
        COLLAPSE,
        "accuracy with 3 bits a weight (GPTQ, groups of 64), as a share of the accuracy without",
        {
            "diffusion": Bar(
                "yes, more than {percent} is kept",
                ">",
                0.9,
                ours=True,
                reported="LLaDA-8B: 98.2 % of GSM8K is kept",
            ),
            "ar": replace(COLLAPSES, reported="Llama-3.1-8B: 35.3 % of GSM8K is kept"),
            "ar-init": Bar(UNCLAIMED, ">", 0.9, ours=True, claimed=False),
        },
        estimates.kept_compressed("3 bits"),
    ),
    Claim(
        "The best allocation of sparsity reverses",
        "With half of all weights gone, is it better to have sparser early layers than sparser late ones?",
        COLLAPSE,
        "accuracy with sparser early layers (Wanda, 70 % of the first to 30 % of the last layer) minus the accuracy "
        "with sparser late ones",
        {
            "diffusion": Bar(
                "yes, more is solved with sparser early layers",
                ">",
                0.0,
                reported="LLaDA-8B: sparser early layers gain 8.4 % at a mean sparsity of one half",
            ),
            "ar": Bar(
                "no, less is solved with them", "<", 0.0, reported="Llama-3.1-8B: sparser early layers lose 8.4 %"
            ),
            "ar-init": Bar(UNCLAIMED, ">", 0.0, claimed=False),
        },
        estimates.early_minus_late_sparser,
    ),
    Claim(
        "Early layers are overtrained",
        "Are the spectra of early layers heavier in the tail than those of late ones?",
        COLLAPSE,
        "exponent alpha of the spectra, averaged over the first third of the blocks, minus the same of as many last "
        "ones, over kinds of matrices; the smaller alpha, the heavier the tail and the further trained",
        {
            "diffusion": Bar("yes, alpha is smaller in early layers", "<", 0.0),
            "ar": Bar(UNCLAIMED, "<", 0.0, claimed=False),
            "ar-init": Bar(UNCLAIMED, "<", 0.0, claimed=False),
        },
        estimates.early_minus_late_alpha,
    ),
)
"""What is asked with `compression=True`."""

"""What two papers claim of layers and channels, as inequalities that a study decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any, Literal, final

from dlens.findings.layers.compare import third
from dlens.findings.scores.estimate import Estimate
from dlens.findings.study import asides, estimates
from dlens.findings.study.asides import Aside
from dlens.findings.study.bars import Bar, Verdict, limit_of, verdict_of
from dlens.findings.study.estimates import Measure, blocks_words
from dlens.findings.study.results import ModelKind
from dlens.findings.study.study import Study

__all__ = [
    "BY_LOSS",
    "CLAIMS",
    "COMPRESSION_CLAIMS",
    "PAPERS",
    "SHARE",
    "Cell",
    "Claim",
    "Row",
    "claims",
]

SKIPPING = "arXiv 2603.07475"
COLLAPSE = "arXiv 2605.06366"
PAPERS = {
    SKIPPING: "A Comparative Analysis of Layer-wise Representational Capacity in AR and Diffusion LLMs",
    COLLAPSE: "Layer Collapse in Diffusion Language Models",
}
UNCLAIMED = "no claim; judged as native diffusion"
# What a page says of a cell, beside its numbers.
_SHOWN = ("margin", "answer", "unit", "note", "more", "asides", "tied")


@final
@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        title: in a few words.
        question: what is asked of every kind of model, of {blocks} of `change` and of blocks by what `_where` calls
            them; the papers' answers differ by kind.
        source: which paper.
        effect: what is measured.
        bars: for each kind of model what the paper says of it, as an answer to the question.
        measure: the effect of one model of a study.
        unit: of the effect.
        over: what its interval is over.
        change: whose blocks are meant.
        note: what else is said of a model at a glance.
        aside: what the verdict alone would not tell of a model.
        tied: why the verdict on a model is no finding of its own; empty where it is one.
    """

    title: str
    question: str
    source: str
    effect: str
    bars: Mapping[ModelKind, Bar]
    measure: Measure
    unit: str
    over: Literal["texts", "problems", "matrices"] = "texts"
    change: str = "apart"
    note: Callable[[Study, str], str] | None = None
    aside: Aside | None = None
    tied: Callable[[Study, str], str] | None = None


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
        limit: why this many problems cannot decide it, and how many could; empty where they can.
        margin: the number in the bar.
        answer: what was found, and whether that is as claimed.
        unit: of the effect.
        note: which channel is meant, where one is.
        more: what would narrow the interval of a verdict that is undecided.
        inferred: from what the claim follows, where the papers do not make it of this kind of model themselves.
        asides: what the verdict alone would not tell.
        tied: why the verdict is no finding of its own; empty where it is one.
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
    answer: str = ""
    unit: str = ""
    note: str = ""
    more: str = ""
    inferred: str = ""
    asides: tuple[str, ...] = ()
    tied: str = ""

    def to_json(self) -> dict[str, Any]:
        """The numbers and the verdict as plain data; the rest follows from them."""
        own = {name: value for name, value in vars(self).items() if name not in _SHOWN}
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


def claims(found: Study) -> tuple[Row, ...]:
    """Every claim with the numbers and the verdict for every model of a study."""
    asked = (*CLAIMS, *COMPRESSION_CLAIMS) if found.settings.compression else CLAIMS
    return tuple(_row(claim, found) for claim in asked)


def _row(claim: Claim, found: Study) -> Row:
    blocks = found.skipped(claim.change)
    question = claim.question.format(blocks=blocks, **_where(found))
    cells = tuple(_cell(claim, found, name) for name in found.models)
    return Row(claim.title, claim.source, claim.effect.format(blocks=blocks), cells, question)


def _where(found: Study) -> dict[str, str]:
    """Which blocks are called early and late, which differs by question; of models that differ, each."""
    sizes = {name: third(own.n_layers) for name, own in found.models.items()}
    places = {
        "first": [range(n) for n in sizes.values()],
        "after_first": [range(1, 1 + n) for n in sizes.values()],
        "early_run": [own.changes["early run"].layers for own in found.models.values()],
        "late_run": [own.changes["late run"].layers for own in found.models.values()],
    }
    return {name: " or ".join(dict.fromkeys(map(blocks_words, own))) for name, own in places.items()}


def _cell(claim: Claim, found: Study, name: str) -> Cell:
    kind = found.models[name].kind
    bar = claim.bars[kind]
    effect = (bar.measure or claim.measure)(found, name)
    verdict = verdict_of(effect, bar)
    undecided = verdict == "undecided"
    said = (bar.beyond(), claim.aside(found, name, bar, verdict) if claim.aside else "")
    solved = sum(found.models[name].answers["whole"].correct)
    return Cell(
        model=name,
        kind=kind,
        says=bar.says,
        bar=str(bar),
        effect=effect,
        verdict=verdict,
        claimed=bar.claimed,
        reported=bar.reported,
        limit=limit_of(effect, bar, solved) if undecided else "",
        margin=bar.margin,
        answer=bar.answer(verdict),
        unit=bar.unit or claim.unit,
        note=claim.note(found, name) if claim.note else "",
        more=_more(claim, effect, found) if undecided else "",
        inferred=bar.inferred,
        asides=tuple(line for line in said if line),
        tied=claim.tied(found, name) if claim.tied else "",
    )


def _more(claim: Claim, effect: Estimate, found: Study) -> str:
    """What would narrow an interval: more problems or more texts; nothing where there is no interval."""
    if not isfinite(effect.low) or claim.over == "matrices":
        return ""
    if claim.over == "problems":
        return "more problems, with --problems, narrow the interval"
    if found.settings.deep:
        return f"over the {found.settings.texts} texts of a full report; problems do not matter here"
    return f"more than {found.settings.texts} texts, without --quick, narrow the interval; problems do not matter here"


COLLAPSES = Bar(
    "not kept, it collapses: less than {percent} is left", "<", 0.5, ours=True, otherwise="over {percent} kept"
)
EARLY_LIKE_LATE = Bar(
    "no, the cosine of early blocks is at most {margin} above that of late ones", "<", 0.02, ours=True
)
SHARE = "share of the accuracy"
BY_LOSS = "Early blocks are easier to skip than late ones"
"""The claim that the loss decides, of which accuracy may say the reverse."""
LATE_EASIER = Bar("no, the reverse: the loss rises less without late blocks than without early ones", "<", 0.0)

CLAIMS: Sequence[Claim] = (
    Claim(
        "Early layers are redundant",
        "Are early layers ({after_first}) redundant?",
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
        "difference of cosines",
        aside=asides.one_early_block,
    ),
    Claim(
        "Recency bias",
        "Are neighbouring tokens more alike than distant ones (similarity, not attention)?",
        SKIPPING,
        "how alike representations are by their distance, not what attention reads: recency index, averaged over "
        "layers: P(1) minus the mean of P(d) over d of half the text and more, where P(d) is the mean cosine of two "
        "positions d tokens apart; the model's minus that of the other kind on the same texts (diffusion against AR, "
        "AR and AR-initialised against diffusion)",
        {
            "diffusion": Bar("less than in AR", "<", 0.0),
            "ar": Bar("more than in native diffusion", ">", 0.0),
            "ar-init": Bar("more than in native diffusion", ">", 0.0),
        },
        estimates.recency,
        "difference of recency indices",
        note=estimates.own_index,
        tied=asides.one_number,
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
        "from 0, native diffusion, to 1, AR",
        tied=asides.end_of_the_line,
    ),
    Claim(
        "Skipping 18.75 % of the blocks, no two neighbours",
        "Skipping {blocks}, no two neighbours: is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without; of AR-initialised models, minus that "
        "share of native diffusion",
        {
            "diffusion": Bar(
                "kept, more than {percent}",
                ">",
                0.9,
                reported="LLaDA-8B, 6 of 32 blocks: 91.8 % of GSM8K, 88.2 % of HumanEval, 102.1 % of MATH500",
            ),
            "ar": replace(COLLAPSES, reported="Qwen2.5-7B, 2 of 28 blocks: 34.9 % of GSM8K, 64.7 % of HumanEval"),
            "ar-init": Bar(
                "less is kept than in native diffusion",
                "<",
                0.0,
                reported="Dream-7B, 2 of 28 blocks: 76.8 % of GSM8K, 66.2 % of HumanEval, 81.4 % of MATH500; LLaDA-8B, "
                "2 of 32: 101.3 %, 100 %, 108.5 %",
                measure=estimates.kept_beside_diffusion("apart"),
                unit="difference of shares",
                otherwise="more is kept than in native diffusion",
            ),
        },
        estimates.kept("apart"),
        SHARE,
        over="problems",
        note=estimates.blocks_apart,
    ),
    Claim(
        "Skipping 18.75 % of the blocks, consecutive and early",
        "Skipping {blocks}, consecutive and early ({early_run}): is the accuracy kept?",
        SKIPPING,
        "accuracy with the blocks skipped, as a share of the accuracy without",
        {
            "diffusion": Bar(
                "not kept, less than {percent} where neighbours are skipped",
                "<",
                0.9,
                ours=True,
                reported="LLaDA-8B, 6 of 32 blocks, neighbours allowed: 75.3 % of GSM8K, 64.7 % of HumanEval",
            ),
            "ar": replace(COLLAPSES, inferred="what is claimed of blocks of which no two are neighbours"),
            "ar-init": replace(COLLAPSES, reported="Dream-7B, 2 of 28 blocks, neighbours allowed: 14.1 % of GSM8K"),
        },
        estimates.kept("early run"),
        SHARE,
        over="problems",
        change="early run",
    ),
    Claim(
        BY_LOSS,
        "Are early layers ({early_run}) easier to skip than late ones ({late_run})?",
        f"{SKIPPING}, {COLLAPSE}",
        "loss of text without {blocks} in a row late in depth, minus the loss without as many early; nats a token",
        {
            "diffusion": Bar("yes, the loss rises less without early blocks than without late ones", ">", 0.0),
            "ar": LATE_EASIER,
            "ar-init": replace(LATE_EASIER, inferred="the claim that such models keep AR dynamics"),
        },
        estimates.late_minus_early,
        "nats a token",
        change="late run",
    ),
    Claim(
        "One channel dominates early layers",
        "Does one channel dominate early layers ({first})?",
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
        "share of the energy",
        note=estimates.early_channel,
    ),
    Claim(
        "Without that channel the model breaks",
        "Does the model break without the channel that is largest in early layers ({first})?",
        COLLAPSE,
        "accuracy with the channel of the largest share in the first third of the blocks set to zero after every block "
        "but the last, as a share of the accuracy with it",
        {
            "diffusion": Bar(
                "breaks, it falls apart: less than {percent} is kept",
                "<",
                0.5,
                ours=True,
                reported="LLaDA-8B −83 % on GSM8K, read as relative: 17 % is kept",
            ),
            "ar": Bar(
                "does not break, more than {percent} is kept",
                ">",
                0.9,
                ours=True,
                reported="AR −4 % on GSM8K, read as relative: 96 % is kept",
                otherwise="under {percent} kept",
            ),
            "ar-init": Bar(UNCLAIMED, "<", 0.5, ours=True, claimed=False, found="breaks"),
        },
        estimates.kept("no outlier"),
        SHARE,
        over="problems",
        note=estimates.removed_channel,
        aside=asides.answers_alone,
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
                reported="LLaDA-8B −1.8 % on GSM8K, read as relative: 98.2 % is kept",
            ),
            "ar": replace(
                COLLAPSES,
                words="no, it collapses: less than {percent} is kept",
                otherwise="over {percent}",
                reported="Llama-3.1-8B −64.7 % on GSM8K, read as relative: 35.3 % is kept",
            ),
            "ar-init": Bar(UNCLAIMED, ">", 0.9, ours=True, claimed=False),
        },
        estimates.kept_compressed("3 bits"),
        SHARE,
        over="problems",
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
                reported="LLaDA: +8.4 % with sparser early layers at a mean sparsity of one half, read as a difference",
            ),
            "ar": Bar(
                "no, less is solved with them",
                "<",
                0.0,
                reported="Llama: −8.4 % with sparser early layers, read as a difference",
            ),
            "ar-init": Bar(UNCLAIMED, ">", 0.0, claimed=False),
        },
        estimates.early_minus_late_sparser,
        "difference of accuracies",
        over="problems",
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
        "difference of exponents",
        over="matrices",
    ),
)
"""What is asked with `compression=True`."""

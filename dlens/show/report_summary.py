"""The table on top of a report, and the paragraphs at its end."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite

from dlens.findings.claims import Cell, Row
from dlens.findings.effects import Effect
from dlens.findings.parts import MASK_RATES
from dlens.findings.study import Study

__all__ = ["method", "number", "summary"]

_CLASS = {"holds": "holds", "does not hold": "not", "undecided": "undecided"}


_DEEP = (
    "Matched points: the model as it is continues the first 24 tokens of 16 texts by 32 tokens; where half of these "
    "are decided, its canvas is read with and without the skip. Thirds: half of the problems, thirds of the planned "
    "steps of a diffusion model, and of an autoregressive model's own answer.",
)


def summary(rows: Sequence[Row]) -> str:
    """A row for each claim, a cell for each model: the verdict, the effect with its interval, and what is claimed."""
    models = [cell.model for cell in rows[0].cells]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("claim", *models))
    body = "\n".join(_row(row) for row in rows)
    return f"""<section>
<h2>What holds</h2>
<p>A claim holds for a model where the whole 95 % interval of the effect lies on the claimed side of the margin, does
not hold where it lies on the other side, and is undecided else. Intervals cover texts and problems, not training runs;
they are not corrected for the number of claims. The
margins are chosen by dlens; only the 90 % that are kept come from a paper.</p>
<table class="claims"><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
</section>"""


def _row(row: Row) -> str:
    cells = "".join(_cell(cell) for cell in row.cells)
    about = f"{escape(row.effect)} ({escape(row.source)})"
    return f'<tr><th scope="row">{escape(row.title)}<small>{about}</small></th>{cells}</tr>'


def _cell(cell: Cell) -> str:
    return (
        f'<td data-model="{escape(cell.model)}"><span class="verdict {_CLASS[cell.verdict]}">{cell.verdict}</span> '
        f'<span class="number">{escape(number(cell.effect))}</span>'
        f"<small>claimed {escape(cell.bar)}: {escape(cell.says)}</small>"
        + (f"<small>{escape(cell.effect.why)}</small>" if cell.effect.why else "")
        + "</td>"
    )


def number(effect: Effect) -> str:
    """A number with its interval.

    Examples:
        >>> number(Effect(0.5, 0.25, 0.75)), number(Effect(0.5, float("nan"), float("nan")))
        ('0.50 [0.25, 0.75]', '0.50')
    """
    digits = 2 if abs(effect.value) >= 0.1 else 3
    if not isfinite(effect.value):
        return ""
    value, low, high = (f"{part:.{digits}f}".replace("-", "−") for part in (effect.value, effect.low, effect.high))
    return f"{value} [{low}, {high}]" if isfinite(effect.low) else value


def method(found: Study) -> str:
    """How everything was measured, a paragraph a line."""
    settings = found.settings
    noise = ", ".join(f"{rate:.0%}" for rate in MASK_RATES)
    estimators = "; ".join(dict.fromkeys(model["losses"]["whole"]["estimator"] for model in found.models.values()))
    changes = " ".join(
        f"{name}: {'; '.join(words for key, words in model['changes'].items() if key != 'whole')}."
        for name, model in found.models.items()
    )
    versions = ", ".join(f"{package} {version}" for package, version in found.versions.items())
    lines = [
        f"Texts: {settings.texts} of the 24 that ship with dlens, stories, word problems and code, the same for all "
        f"models, each read in a forward of its own, clean, and by diffusion models also with {noise} of the tokens "
        f"masked at random: masks alone would make early layers look alike. Layers are read at resid_pre and "
        f"resid_post, never at the output of the final norm. Cosine per token, averaged over positions; recency from "
        f"the cosine of two positions of a text; the largest channel is the one with the largest share of the "
        f"energy over all blocks but the last, on the whole calibration text.",
        f"Loss: {estimators}; the same masks for every change.",
        f"Accuracy: {settings.problems} test problems of {found.task}, the same for every model and change, greedy; "
        f"diffusion models with LLaDA's sampler, two tokens a step. A share of nothing is not measurable: where a "
        f"model solves no problem as it is, there is no number.",
        *(_DEEP if settings.deep else ()),
        "Intervals: 95 %, percentile bootstrap over texts or problems, in pairs; where all resamples agree, the exact "
        "interval of the share of solved problems that are kept.",
        "Kinds: a diffusion model whose logits are shifted by one is taken to have started from an autoregressive "
        "model, as Dream has, unless the kind was given. How the papers measured is not known in all details: claims "
        "are put as dlens measures them, and arXiv 2605.06366 does not say how it prunes the channel.",
        f"Changes. {changes}",
        f"Seed {settings.seed}, of problems, masks, the random channel and resamples. {versions}. "
        f"{found.reused} parts were read from an earlier run with the same code, weights and settings.",
    ]
    return "\n".join(lines)

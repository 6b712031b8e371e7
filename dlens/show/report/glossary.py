"""What the words of a report mean, for a reader who knows PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dlens.findings.scores.intervals import LEVEL
from dlens.findings.study.study import Study
from dlens.html import rendered
from dlens.models.source import TRIO

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["glossary", "terms"]

_TASKS = {
    "trio-code": "write the body of a Python function of one to four arithmetic steps",
    "trio-math": "word problems of small numbers",
}


def glossary(found: Study) -> Markup:
    """The words of a report on a study, folded."""
    return rendered("show/report/glossary.html.j2", terms=terms(found))


def terms(found: Study) -> dict[str, str]:
    """Word -> what it means, for the words that a report on this study uses.

    Args:
        found: what was measured.
    """
    return dict([*_of_layers(found), *_of_models(found), *_of_effects(found)])


def _of_layers(found: Study) -> Iterator[tuple[str, str]]:
    widths = " or ".join(map(str, sorted({own.d_model for own in found.models.values()})))
    yield "block, layer", "one attention and MLP of the network, counted from 0; early and late are thirds of depth"
    yield "stream", "the hidden state: a vector for each token, [batch, position, d_model], to which every block adds"
    yield "channel", f"one index of that vector, hidden[..., channel], of {widths}"
    yield "energy", "sum of squares of the stream; the share of a channel is its part of it"
    yield "resid_pre, resid_post", "input and output of a block, as a forward hook sees them, before any final norm"
    yield "cosine of a block", "between its input and its output, token by token: near 1 where it changes little"
    yield "skip", "a block gives its input back unchanged"


def _of_models(found: Study) -> Iterator[tuple[str, str]]:
    if set(found.models) & set(TRIO):
        yield (
            "trio",
            "three models of 8 million parameters that ship with dlens: AR, native diffusion, AR-initialised diffusion",
        )
    yield "AR", "autoregressive: predicts the next token, attends to earlier ones"
    if any(own.kind != "ar" for own in found.models.values()):
        yield (
            "diffusion",
            "predicts all masked tokens at once and attends to all; native: trained from random weights; "
            "AR-initialised: from an AR model",
        )
        yield "masked", "replaced by the mask token; with 25 % masked, a quarter of a text is"
        yield (
            "LLaDA's sampler",
            "begins with masks, and fixes at each step those of which the model is surest",
        )


def _of_effects(found: Study) -> Iterator[tuple[str, str]]:
    if found.task in _TASKS:
        yield found.task, f"test problems that ship with dlens: {_TASKS[found.task]}"
    yield "kept", "accuracy with a change divided by the accuracy of the model as it is, on the same problems"
    yield "nats", "unit of cross-entropy with the natural logarithm, as PyTorch gives it; here a token"
    yield "0.5 [0.4, 0.6]", f"an effect with the ends of its {LEVEL:.0%} interval"

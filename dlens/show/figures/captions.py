"""What a figure is of besides a model: which text, which task, how much of it, with which operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from dlens.findings.circuits.attribute import Attribution
from dlens.findings.effects.collapse import Collapse
from dlens.findings.effects.disruption import Disruption
from dlens.findings.effects.phases import Phases
from dlens.findings.effects.retention import Retention
from dlens.findings.layers.profile import Profile
from dlens.tracing.records.record import Record

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["caption_of", "captioned", "counted"]

# As much of a text as tells it from others.
_LENGTH = 60
_KEY = "caption"
_READING = ("capture", "gradient", "measure")


def captioned(figure: go.Figure, found: Sequence[tuple[str, Any]]) -> go.Figure:
    """The same figure, which says in its file what it is of.

    Args:
        figure: of plotly; on a screen it stays as it is.
        found: the results that it shows, or what to say of them, each with the name that it goes by.

    Examples:
        >>> import dlens
        >>> from dlens.show.figures import Statistic, lines
        >>> figure = lines([Statistic("ar", "loss", "layer", [3, 5], [2.5, 2.25])])
        >>> caption_of(captioned(figure, [("ar", dlens.trace("trio/ar").skip([3]).forward("Once"))]))
        '“Once”; skip layers 3'
    """
    said = [(name, _words(own)) for name, own in found]
    alike = {words for _, words in said}
    caption = alike.pop() if len(alike) == 1 else ". ".join(f"{name}: {words}" for name, words in said)
    return figure.update_layout(meta={_KEY: caption}) if caption else figure


def caption_of(figure: go.Figure) -> str:
    """What a figure is of; empty where it does not say."""
    meta: Any = figure.layout.meta  # pyright: ignore
    return str(meta.get(_KEY, "")) if isinstance(meta, Mapping) else ""


@singledispatch
def _words(found: Any) -> str:
    """What a result is of."""
    raise TypeError(type(found))


@_words.register
def _(found: str) -> str:
    return found


@_words.register
def _(found: Record) -> str:
    texts = [_text(found, row) for row in range(len(found.tokens))]
    shown = _quoted([text for text in texts if text]) or counted(len(texts), "text")
    if found.kind != "forward":
        new = int((~found.is_prompt & ~found.is_pad).sum(-1).max())
        shown = f"{counted(new, 'new token')} after {shown}"
    return _with_plan(shown, found.plan)


def _text(record: Record, row: int) -> str:
    """The prompt of a row as far as its tokens are known as text."""
    return "".join(record.pieces.get(token, "") for token in record.tokens[row][record.is_prompt[row]].tolist())


@_words.register
def _(found: Profile) -> str:
    return _with_plan(f"{counted(found.n_prompts, 'text')}, {counted(found.n_tokens, 'token')}", found.plan)


@_words.register
def _(found: Retention) -> str:
    # Its operations are what points are named by.
    return f"{found.model}, {_problems(found)}"


@_words.register
def _(found: Collapse) -> str:
    return _problems(found)


@_words.register
def _(found: Phases) -> str:
    skipped = f"skip layers {', '.join(map(str, found.layers))}"
    return "; ".join([*dict.fromkeys(map(_problems, found.thirds.values())), skipped])


def _problems(found: Retention | Collapse) -> str:
    return f"{counted(found.n, 'problem')} of {found.task}, seed {found.seed}"


@_words.register
def _(found: Disruption) -> str:
    return _with_plan(counted(found.n_prompts, "text"), found.plan)


@_words.register
def _(found: Attribution) -> str:
    masked = "" if found.noise is None else f", {found.noise:.0%} masked"
    pairs = f"{counted(found.n, 'pair')} of texts" if found.n > 1 else "a pair of texts"
    return _with_plan(f"{found.model}, {found.method} at {found.at}, {pairs}{masked}", found.plan)


def _with_plan(words: str, plan: Sequence[Mapping[str, Any]]) -> str:
    """With the operations that change what a model computes."""
    return "; ".join([words, *(entry["words"] for entry in plan if entry.get("op") not in _READING)])


def counted(n: int, what: str) -> str:
    """A number of things in words.

    Examples:
        >>> counted(1, "text"), counted(3, "text")
        ('1 text', '3 texts')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _quoted(texts: Sequence[str]) -> str:
    """One text, or the first of several, as far as there is room."""
    if not texts:
        return ""
    flat = " ".join(texts[0].split())
    first = f"“{flat if len(flat) <= _LENGTH else flat[: _LENGTH - 1].rstrip() + '…'}”"
    return first if len(texts) == 1 else f"{counted(len(texts), 'text')}, the first {first}"

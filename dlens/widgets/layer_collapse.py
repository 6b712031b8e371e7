"""How alike the layers of a run are, and which channels hold its energy."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
import traitlets
from markupsafe import Markup
from torch import Tensor

from dlens.checks import refuse
from dlens.html import rendered
from dlens.tracing.records.record import Record
from dlens.widgets.denoising_numbers import piece, title, visible
from dlens.widgets.job import Job
from dlens.widgets.layer_collapse_numbers import (
    CKA_POSITIONS,
    SimilarityKind,
    by_step,
    check_row,
    held_layers,
    measured_shares,
    measured_similarity,
    share_of,
    similarity,
    steps_of,
    stream,
)
from dlens.widgets.panel import Asked, Panel, corrected, css, esm, heat_html, numbers_html, packed
from dlens.widgets.sources import as_trace, asked_run, watched

__all__ = ["LayerCollapse"]

_TOP = 6
_COLUMNS = 512
_NEW_TOKENS = 32
_PLACES = ("step", "layer", "layer_b", "position", "channel")


@final
class LayerCollapse(Panel):
    """Similarity of every two layers, and the channels that hold the stream's energy, by layer, token and step.

    Of a record it needs the stream of all layers, `.capture("resid_post", steps=[...])`, for everything, or only
    measures, `.measure(dlens.Outliers(), dlens.CKA(), dlens.measures.CosinePairs())`, for the pictures without tokens
    (a measure with `drop=[channel]` and a `name=` of its own gives the similarity without a channel). A model is run
    once on a short prompt; it can then be run again with a channel ablated, in the background.

    The positions are all but padding. Maps with more than 512 positions show the mean of neighbours, and say so.

    State that the page changes and that may be set: `step`, `layer`, `layer_b`, `channel`, `position`, `kind`
    ("cosine" or "cka"), `without` (leave out the channel), `ablated` (show the run with the channel ablated). Where
    one is set to what the record does not have, the nearest is shown, and `message` says so.

    `similarity`, `token_shares` and `detail` say what they are of: what was chosen may be newer than they are, while
    the kernel works.

    Args:
        source: a record, or anything `dlens.trace` takes.
        other: for a record, the same run with a channel ablated, for `ablated`.
        prompt: for a model; the first words of the shipped text by default.
        max_new_tokens: for a model; 32 by default.
        row: which row of the batch.

    Raises:
        ValueError, IndexError: the record holds nothing to show (it says what to capture), or is of a run already and
            has a prompt or length beside it; another record beside a model.

    Examples:
        >>> from dlens.widgets import LayerCollapse
        >>> widget = LayerCollapse("trio/diffusion", max_new_tokens=4)
        >>> widget.channel == widget.channels[0], len(widget.detail["tokens"]) > 0, widget.html().startswith("<")
        (True, True, True)
        >>> widget.ablated = True
        >>> widget.wait(), sorted(widget.texts)
        (True, ['ablated', 'plain'])
    """

    _esm = esm("layer_collapse")
    _css = css("layer_collapse")
    name = traitlets.Unicode().tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    steps = traitlets.List(traitlets.Int()).tag(sync=True)
    channels = traitlets.List(traitlets.Int()).tag(sync=True)
    shares = traitlets.Dict().tag(sync=True)
    similarity = traitlets.Dict().tag(sync=True)
    token_shares = traitlets.Dict().tag(sync=True)
    group = traitlets.Int(1).tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    other_name = traitlets.Unicode("").tag(sync=True)
    can_ablate = traitlets.Bool(False).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    layer_b = traitlets.Int(0).tag(sync=True)
    channel = traitlets.Int(-1).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    kind = traitlets.Enum(("cosine", "cka"), "cosine").tag(sync=True)
    without = traitlets.Bool(False).tag(sync=True)
    ablated = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        source: Any,
        other: Record | None = None,
        *,
        prompt: Any = None,
        max_new_tokens: int | None = None,
        row: int = 0,
    ) -> None:
        run = asked_run([source], prompt, max_new_tokens, _NEW_TOKENS)
        self._run = None if isinstance(source, Record) else (as_trace(source), *run)
        if other is not None and self._run is not None:
            refuse("other", other, "no other beside a model, which runs again by itself", "pass the record of its run")
        record = source if self._run is None else watched(*self._run)
        for each in (record, other):
            if each is not None:
                _check(each, row)
        self._plain, self._row = record, row
        self._ablated_runs: dict[int, Record] = {}
        self._other = other
        self._held: tuple[Any, Any] = (None, None)
        self._correction = self._about = ""
        self._job = Job(lambda words: setattr(self, "status", words))
        channels, _ = _channels(record, row)
        super().__init__(
            name=title(record),
            layers=record.n_layers,
            layer_b=min(1, record.n_layers - 1),
            steps=list(steps_of(record)),
            step=(steps_of(record) or (0,))[0],
            channels=channels,
            channel=channels[0] if channels else -1,
            other_name="" if other is None else title(other),
            can_ablate=bool(channels) and (other is not None or self._run is not None),
            texts={"plain": _text(record, row), "ablated": "" if other is None else _text(other, row)},
        )
        self._draw(None)
        self.observe(self._draw, ["step", "layer", "layer_b", "channel", "position", "kind", "without", "ablated"])

    @traitlets.validate(*_PLACES)
    def _inside(self, proposal: Any) -> int:
        """Values outside the run become the nearest inside."""
        name, value = proposal.trait.name, proposal.value
        if name in ("step", "channel"):
            held = self.steps if name == "step" else self.channels
        else:
            held = range(self.layers if name.startswith("layer") else self._plain.tokens.shape[-1])
        nearest = min(held, key=lambda each: abs(each - value), default=value)
        self._say(corrected(name, value, nearest))
        return nearest

    @traitlets.validate("ablated")
    def _possible(self, proposal: Any) -> bool:
        """True only where there is such a run, or a model to make one with."""
        possible = self.can_ablate or not proposal.value
        self._say("" if possible else _NOT_ABLATED)
        return proposal.value and possible

    def _say(self, correction: str) -> None:
        """What was corrected, before what there is to know about the similarity."""
        self._correction = correction
        self.message = " ".join(part for part in (correction, self._about) if part)

    def _draw(self, change: Any) -> None:
        name = None if change is None else change.name
        if name not in (*_PLACES, "ablated"):
            self._say("")
        if self.ablated and self._shown() is self._plain:
            self._ablate()
        with self.hold_sync():
            self.name = title(self._shown())
            self.texts = self.texts | {
                "ablated": "" if self._shown() is self._plain else _text(self._shown(), self._row)
            }
            if name in (None, "step", "kind", "without", "ablated") or (
                name == "channel" and (self.without or self.ablated)
            ):
                self._draw_similarity()
            if name in (None, "step", "channel", "ablated"):
                self._draw_shares()
            if self.steps:
                self.detail = self._details(name)

    def _shown(self) -> Record:
        """The record on the page: as it is, or with the channel ablated where that was asked for and is there."""
        if not self.ablated:
            return self._plain
        return self._other or self._ablated_runs.get(self.channel, self._plain)

    def _ablate(self) -> None:
        if self._run is None:
            return
        channel, (chain, prompt, new_tokens) = self.channel, self._run
        self.status = f"running without channel {channel} …"

        def work(stop: Any) -> None:
            ablated = chain.ablate_outlier(channel=channel)
            self._ablated_runs[channel] = watched(ablated, prompt, new_tokens, cancel=stop)
            self.status = ""
            self._draw(None)

        self._job.start(work)

    def _asked(self) -> list[Asked]:
        steps, channels = self.steps or [self.step], self.channels or [self.channel]
        pairs = {"step": steps, "kind": ["cosine", "cka"], "without": [False, True], "channel": channels}
        if not self.steps:
            return [Asked(pairs, ("similarity", "message"))]
        places = {"step": steps, "channel": channels}
        return [
            Asked(pairs, ("similarity", "message")),
            Asked(places, ("token_shares", "shares", "group")),
            Asked(places | {"layer": range(self.layers)}, ("detail",)),
        ]

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until a run in the background is over; whether it is."""
        return self._job.wait(seconds)

    def _draw_similarity(self) -> None:
        record, drop = self._shown(), self.channel if self.without and self.channel >= 0 else None
        kind: SimilarityKind = "cka" if self.kind == "cka" else "cosine"
        if self.steps:
            values = similarity(self._stream()[0], kind, drop)
        else:
            values = measured_similarity(record, kind, drop)
        of = {"kind": self.kind, "without": -1 if drop is None else drop, "step": self.step}
        self.similarity = {} if values is None else packed(values) | of
        known = values is not None and bool(np.isfinite(values).any())
        self._about = self._thinned(kind) if known else _advice(kind, drop, values is None)
        self._say(self._correction)

    def _thinned(self, kind: SimilarityKind) -> str:
        """What was left out of the similarity, if anything."""
        n = len(self._stream()[1]) if self.steps and kind == "cka" else 0
        return f"CKA of {CKA_POSITIONS} of the {n} positions, evenly apart." if n > CKA_POSITIONS else ""

    def _draw_shares(self) -> None:
        if not self.steps:
            found = measured_shares(self._shown())
            if found is not None:
                self.shares = packed(found[1])
            return
        h, positions = self._stream()
        energy = h.square().sum(1)
        self.shares = packed((energy[:, self.channels] / energy.sum(-1, keepdim=True)).numpy())
        of_tokens = share_of(h, self.channel)
        self.group = -(-len(positions) // _COLUMNS)
        of = {"channel": self.channel, "step": self.step, "group": self.group}
        self.token_shares = packed(_grouped(of_tokens, self.group).numpy()) | of

    def _details(self, changed: str | None) -> dict[str, Any]:
        """The tokens of a layer and channel, and its steps."""
        record = self._shown()
        h, positions = self._stream()
        here = share_of(h[self.layer], self.channel)
        top = here.topk(min(8, len(positions)))
        ids = self._ids()
        tokens = [
            [positions[i], piece(record, ids[positions[i]]), p] for p, i in zip(*map(Tensor.tolist, top), strict=True)
        ]
        at = min(self.position, len(positions) - 1)
        return {
            "layer": self.layer,
            "channel": self.channel,
            "step": self.step,
            "tokens": tokens,
            # Steps are read anew only where they may have changed, as each is a pass over its stream.
            "steps": self.detail["steps"]
            if changed in ("position", "kind", "without", "step")
            else [list(pair) for pair in by_step(record, self._row, self.layer, self.channel)],
            "position": positions[at],
            "token": piece(record, ids[positions[at]]),
            "first": positions[0],
            "largest": _largest(h[self.layer, at]),
        }

    def _ids(self) -> list[int]:
        record = self._shown()
        return (record.tokens if record.canvas is None else record.canvas[self.step])[self._row].tolist()

    def _stream(self) -> tuple[Tensor, list[int]]:
        key = (id(self._shown()), self.step)
        if self._held[0] != key:
            self._held = (key, stream(self._shown(), self._row, self.step))
        return self._held[1]

    def html(self) -> str:
        """The similarity, the shares and the tokens that are shown."""
        drop = f" without channel {self.channel}" if self.without else ""
        html = rendered(
            "widgets/layer_collapse.html.j2",
            name=self.name,
            message=self.message,
            similarity=heat_html(self.similarity, f"{self.kind} of layer (down) and layer (across){drop}"),
            shares=self._shares_html(),
            channel=self.channel,
            layer=self.layer,
            tokens=self._tokens_html(),
        )
        return str(html)

    def _shares_html(self) -> Markup:
        if not self.shares:
            return Markup()
        values = np.frombuffer(self.shares["data"], "<f4").reshape(self.shares["shape"])
        columns = ["layer", *(f"channel {channel}" for channel in self.channels)]
        return numbers_html(columns, [[layer, *map(float, row)] for layer, row in enumerate(values)])

    def _tokens_html(self) -> Markup:
        if not self.detail:
            return Markup()
        rows = [[position, visible(text), share] for position, text, share in self.detail["tokens"]]
        return numbers_html(["position", "token", "share"], rows)


def _check(record: Record, row: int) -> None:
    check_row(record, row, "LayerCollapse")
    anything = measured_shares(record), *(measured_similarity(record, kind) for kind in ("cosine", "cka"))
    if not steps_of(record) and all(found is None for found in anything):
        raise ValueError(
            f"LayerCollapse got a record that holds {held_layers(record)} and no measure of them all; expected "
            f"resid_post of all {record.n_layers} layers at some step; add .capture('resid_post', steps=[0]), or "
            f".measure(dlens.Outliers(), dlens.CKA())"
        )


_NOT_ABLATED = (
    "There is no run with the channel ablated: pass one as other=, made with .ablate_outlier(channel=...), or make the "
    "widget of a model."
)


def _channels(record: Record, row: int) -> tuple[list[int], Any]:
    """The channels with the largest share averaged over all layers but the last, at the first step captured."""
    if not steps_of(record):
        return measured_shares(record) or ([], None)
    energy = stream(record, row, steps_of(record)[0])[0].square().sum(1)
    mean = (energy / energy.sum(-1, keepdim=True))[: max(1, len(energy) - 1)].mean(0)
    return mean.topk(min(_TOP, len(mean))).indices.tolist(), None


def _largest(h: Tensor) -> list[list[float]]:
    """The channels with the largest share at one position."""
    share = h.square() / h.square().sum().clamp(min=torch.finfo(h.dtype).tiny)
    top = share.topk(min(4, len(share)))
    return [[int(c), float(p)] for c, p in zip(top.indices, top.values, strict=True)]


def _grouped(values: Tensor, size: int) -> Tensor:
    """Means of neighbouring columns."""
    if size == 1:
        return values
    return torch.stack([part.mean(-1) for part in values.split(size, dim=-1)], -1)


def _text(record: Record, row: int) -> str:
    return record.text[row] if record.text else ""


def _advice(kind: str, drop: int | None, absent: bool) -> str:
    if not absent:
        return "CKA needs at least four positions that differ; show the cosine instead."
    measure = "dlens.CKA" if kind == "cka" else "dlens.measures.CosinePairs"
    given = "" if drop is None else f"drop=[{drop}], name='{kind}_without'"
    return f"Not in this record: add .measure({measure}({given})) to the trace, or .capture('resid_post', steps=[0])."

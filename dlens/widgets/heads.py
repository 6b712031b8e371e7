"""What every head attends to, step by step, and what is lost without some of them."""

from __future__ import annotations

from typing import Any, final

import traitlets

from dlens.html import rendered
from dlens.tracing.chain import Trace
from dlens.tracing.records.record import Record
from dlens.widgets.denoising_numbers import title
from dlens.widgets.heads_numbers import Patterns, ablated, line_of_python, patterned, patterns_of
from dlens.widgets.job import Job
from dlens.widgets.panel import Asked, Panel, corrected, css, esm, heat_html, numbers_html, packed
from dlens.widgets.sources import as_trace, asked_run

__all__ = ["Heads"]

_THUMBNAIL = 24
_SIDE = 256
_NEW_TOKENS = 16
# Of a page without a kernel, before it is compressed.
_MOST_BYTES = 16_000_000


@final
class Heads(Panel):
    """The attention pattern of every head as a thumbnail, one of them in full with its tokens, at each step.

    A head that is clicked is shown in full; with the button it is ablated (what it puts together, `z`, is set to
    zero). Of a model the run is then made anew in the background, and both texts are shown; of a record alone the line
    of Python is.

    State that the page changes and that may be set: `layer`, `head`, `step`, `off` (pairs of layer and head that are
    ablated). Where one is set to what there is not, the nearest is shown, and `message` says so. `trace` is the chain
    with the ablations. Patterns of more than 256 positions show means of neighbours.

    Args:
        source: a record that captured `pattern`, or anything `dlens.trace` takes.
        prompt: for a model; the first words of the shipped text by default.
        max_new_tokens: for a model; 16 by default.
        row: which row of the batch.

    Raises:
        ValueError, IndexError: a record without patterns, or without this row, or with a prompt or length beside it.

    Examples:
        >>> from dlens.widgets import Heads
        >>> widget = Heads("trio/diffusion", max_new_tokens=4)
        >>> widget.thumbnails["shape"], widget.pattern["shape"], widget.steps
        ([16, 3, 14, 14], [14, 14], [0, 1, 2, 3])
        >>> widget.off = [[3, 0]]
        >>> widget.wait(), widget.code
        (True, "dlens.trace('trio/diffusion').ablate(3, at='z', heads=[0])")
        >>> len(widget.texts), widget.html().startswith("<")
        (2, True)
    """

    _esm = esm("heads")
    _css = css("heads")
    name = traitlets.Unicode().tag(sync=True)
    layers = traitlets.List(traitlets.Int()).tag(sync=True)
    heads = traitlets.Int().tag(sync=True)
    steps = traitlets.List(traitlets.Int()).tag(sync=True)
    noises = traitlets.List().tag(sync=True)
    tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)
    thumbnails = traitlets.Dict().tag(sync=True)
    pattern = traitlets.Dict().tag(sync=True)
    texts = traitlets.List().tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    off = traitlets.List().tag(sync=True)

    def __init__(self, source: Any, *, prompt: Any = None, max_new_tokens: int | None = None, row: int = 0) -> None:
        self._chain = None if isinstance(source, Record) else as_trace(source)
        self._run = asked_run([source], prompt, max_new_tokens, _NEW_TOKENS)
        self._row, self._job = row, Job(self._failed)
        record = source if isinstance(source, Record) else patterned(as_trace(source), *self._run)
        self._patterns = patterns_of(record, row)
        super().__init__(
            name=title(record),
            layers=list(self._patterns.layers),
            heads=self._patterns.heads,
            layer=self._patterns.layers[0],
            texts=_texts(record, row, "as it is"),
            code=line_of_python(record.model, ()),
        )
        self._take(self._patterns)
        self.observe(self._draw_step, "step")
        self.observe(self._draw_pattern, ["layer", "head"])
        self.observe(self._ablate, "off")

    @property
    def trace(self) -> Trace:
        """The chain with the heads that are off, for everything else that dlens does.

        Raises:
            ValueError: the widget was made of a record.
        """
        if self._chain is None:
            raise ValueError("Heads of a record has no model; expected one made of a model; write Heads('trio/ar')")
        return ablated(self._chain, self._places())

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the work in the background is over; whether it is."""
        return self._job.wait(seconds)

    @traitlets.validate("layer", "head", "step")
    def _inside(self, proposal: Any) -> int:
        """Values outside become the nearest inside."""
        name, value = str(proposal.trait.name), proposal.value
        held = {"layer": self.layers, "head": range(self.heads), "step": self.steps or [0]}[name]
        nearest = min(held, key=lambda each: abs(each - value))
        self.message = corrected(name, value, nearest)
        return nearest

    @traitlets.validate("off")
    def _known(self, proposal: Any) -> list[list[int]]:
        """Heads that there are, each once, in order."""
        for layer, head in proposal.value:
            if layer not in self.layers or head not in range(self.heads):
                raise traitlets.TraitError(
                    f"off names head {head} of layer {layer}; expected 0 to {self.heads - 1} of layers "
                    f"{self.layers[0]} to {self.layers[-1]}; give another"
                )
        return [list(place) for place in sorted({(layer, head) for layer, head in proposal.value})]

    def _asked(self) -> list[Asked]:
        side = min(_SIDE, len(self.tokens))
        size = 4 * side**2 * len(self.layers) * self.heads
        steps = self.steps if size * len(self.steps) <= _MOST_BYTES else [self.step]
        everything = {"layer": self.layers, "head": range(self.heads), "step": steps}
        return [Asked({"step": steps}, ("thumbnails", "tokens")), Asked(everything, ("pattern",))]

    def _places(self) -> tuple[tuple[int, int], ...]:
        return tuple((layer, head) for layer, head in self.off)

    def _take(self, patterns: Patterns) -> None:
        """Another run's patterns."""
        with self.hold_sync():
            self._patterns = patterns
            self.steps = list(patterns.steps)
            self.noises = [patterns.noise(step) for step in self.steps]
            self.step = self.step if self.step in self.steps else self.steps[0]
            self._draw_step(None)

    def _draw_step(self, change: Any) -> None:
        with self.hold_sync():
            self.tokens = self._patterns.tokens(self.step)
            self.thumbnails = packed(self._patterns.thumbnails(self.step, _THUMBNAIL)) | {"step": self.step}
            self._draw_pattern(None)

    def _draw_pattern(self, change: Any) -> None:
        values = self._patterns.whole(self.layer, self.head, self.step, _SIDE)
        chosen = {"layer": self.layer, "head": self.head, "step": self.step}
        self.pattern = packed(values) | chosen | {"group": -(-len(self.tokens) // _SIDE)}

    def _ablate(self, change: Any) -> None:
        places = self._places()
        self.code = line_of_python(self._patterns.record.model, places)
        if self._chain is None:
            self.status = "a record cannot be run anew: run the line of Python above" if places else ""
            return
        chain = ablated(self._chain, places)
        self.status = "running"
        self._job.start(lambda stop: self._work(chain, stop))

    def _work(self, chain: Trace, stop: Any) -> None:
        record = patterned(chain, *self._run)
        if stop.is_set():
            return
        with self.hold_sync():
            self.name = title(record)
            self.texts = self.texts[:1] + (_texts(record, self._row, "without these heads") if self.off else [])
            self._take(patterns_of(record, self._row))
            self.status = ""

    def _failed(self, words: str) -> None:
        self.status = words

    def html(self) -> str:
        """The head that is shown, and the texts."""
        html = rendered(
            "widgets/heads.html.j2",
            name=self.name,
            code=self.code,
            message=self.message,
            texts=numbers_html(["", "text"], [list(row) for row in self.texts]),
            matrix=heat_html(self.pattern, f"layer {self.layer}, head {self.head}, step {self.step}: query by key"),
        )
        return str(html)


def _texts(record: Record, row: int, words: str) -> list[list[str]]:
    """What a run wrote, where it wrote anything."""
    return [[words, record.text[row]]] if record.text else []

"""The canvas of a denoising run, step by step."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import traitlets
from torch import equal

from dlens.html import rendered
from dlens.ops.base.given import as_index
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import MASK_SIGN
from dlens.widgets.colours import ink_on, ramp
from dlens.widgets.denoising_numbers import (
    POSITION_KINDS,
    Frames,
    all_thoughts,
    check_denoising,
    first_choices,
    frames_of,
    mask_id,
    piece,
    thoughts,
    title,
    visible,
)
from dlens.widgets.panel import Asked, Panel, corrected, css, esm, heat_html, numbers_html, packed

__all__ = ["Denoising"]

_SHOWN = 512


@final
class Denoising(Panel):
    """The canvas of a denoising run step by step, with what the model thought of at each place.

    It opens at the finished text. Tokens are coloured by the step that committed them, or by the probability they had
    then, or the entropy of all tokens there then; a map of steps by positions shows the whole run at once, and one of
    layers by positions the first choice of every layer at a step. Of a run with a cache, what a step does not compute
    is dim. For alternatives, the logit lens, confidence and entropy the run must have been measured with
    `dlens.TopTokens()`; all else needs only the record. Up to 512 positions are on the page at a time, with buttons for
    the others.

    State that the page changes and that may be set: `step` (0 to the number of steps, where it shows the finished
    text), `position`, `layer`, `row`, `colour` ("commit", "confidence" or "entropy"), `first` (first position on the
    page). Where one is set to what the run does not have, the nearest is shown, and `message` says so.

    Args:
        record: of a denoising run.
        other: a second run of the same prompts, such as one with blocks skipped; shown beside the first with every
            difference marked.
        row: which row of the batch to show first.

    Raises:
        TypeError, ValueError, IndexError: there is no canvas to show, or the two runs do not fit; they say what to run.

    Examples:
        >>> import dlens
        >>> from dlens.widgets import Denoising
        >>> trace = dlens.trace("trio/diffusion").measure(dlens.TopTokens())
        >>> widget = Denoising(trace.generate("Once upon a time", 8))
        >>> widget.step = 3
        >>> len(widget.detail["sides"][0]["alternatives"]), widget.html().startswith("<")
        (5, True)
    """

    _esm = esm("denoising")
    _css = css("denoising")
    sides = traitlets.List().tag(sync=True)
    pieces = traitlets.List(traitlets.Unicode()).tag(sync=True)
    mask = traitlets.Int(-1).tag(sync=True)
    rows = traitlets.Int().tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    last = traitlets.Int().tag(sync=True)
    shown = traitlets.Int(_SHOWN).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    first = traitlets.Int(0).tag(sync=True)
    colour = traitlets.Enum(("commit", "confidence", "entropy"), "commit").tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)
    lens = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)

    def __init__(self, record: Record, other: Record | None = None, *, row: int = 0) -> None:
        records = [check_denoising(record)]
        if other is not None:
            records.append(check_denoising(other))
            _check_pair(record, other)
        if not 0 <= as_index(row, "row") < len(record.tokens):
            raise IndexError(f"row {row} of {len(record.tokens)}; expected 0 to {len(record.tokens) - 1}; give another")
        self._records = records
        self._frames: list[Frames] = []
        layer = max(each.n_layers for each in records) - 1
        super().__init__(
            rows=len(record.tokens),
            layers=layer + 1,
            layer=layer,
            last=max(each.n_steps for each in records),
            row=row,
        )
        self.step = self.last
        self._show_row()
        self.observe(lambda _: self._show_row(), "row")
        self.observe(lambda _: self._show_detail(), ["step", "position", "layer"])
        self.observe(lambda _: self._show_lens(), "step")

    @traitlets.validate("step", "position", "layer", "row", "first")
    def _inside(self, proposal: Any) -> int:
        """Values outside the run become the nearest inside."""
        most = {
            "step": self.last,
            "position": self._records[0].tokens.shape[-1] - 1,
            "layer": self.layers - 1,
            "row": self.rows - 1,
            "first": self._records[0].tokens.shape[-1] - 1,
        }
        name = proposal.trait.name
        nearest = min(max(0, proposal.value), most[name])
        self.message = corrected(name, proposal.value, nearest)
        return nearest

    def _show_row(self) -> None:
        said = self.message
        self._frames = [frames_of(record, self.row) for record in self._records]
        known = sorted({int(i) for frames in self._frames for i in np.unique(frames.ids)})
        texts = {i: next(t for r in self._records if (t := piece(r, i))) if i >= 0 else "" for i in known}
        mask = mask_id(self._records[0])
        generated = np.flatnonzero(self._frames[0].kind == 1)
        # One scale for both runs; 0 where no entropy is known.
        most = max(float(np.nanmax(frames.entropy, initial=0.0)) for frames in self._frames)
        with self.hold_sync():
            self.pieces = [texts[i] for i in known]
            self.mask = known.index(mask) if mask in known else -1
            self.sides = [
                {
                    "name": title(record),
                    "ids": packed(np.searchsorted(known, frames.ids).astype(np.int32)),
                    "committed": packed(frames.committed),
                    "confidence": packed(frames.confidence),
                    "has_confidence": bool(np.isfinite(frames.confidence).any()),
                    "chances": packed(frames.chances),
                    "entropy": packed(frames.entropy),
                    "most_entropy": most,
                    "kind": packed(frames.kind),
                    "noise": [float(n) for n in frames.noise],
                    "computed": {} if frames.computed is None else packed(frames.computed),
                }
                for record, frames in zip(self._records, self._frames, strict=True)
            ]
            if len(generated) and not self.position:
                self.position = int(generated[0])
            self.first = self.position // _SHOWN * _SHOWN
            self._show_detail()
            self._show_lens()
            # The position and the page were set here, and are as they should be.
            self.message = said

    def _show_detail(self) -> None:
        row, position = self.row, self.position
        sides = [
            thoughts(record, row, _telling(record, row, self.step, position), position, self.layer)
            for record in self._records
        ]
        self.detail = {"position": self.position, "layer": self.layer, "sides": sides}

    def _show_lens(self) -> None:
        self.lens = first_choices(self._records[0], self.row, self.step)

    @property
    def thoughts(self) -> list[dict[str, Any]]:
        """All that was measured of the present row of each run, for a page without a kernel."""
        return [all_thoughts(record, self.row) for record in self._records]

    def _asked(self) -> list[Asked]:
        answers = ("sides", "pieces", "mask", "position", "first", "thoughts")
        return [Asked({"row": range(self.rows)}, answers)] if self.rows > 1 else []

    def _measured(self) -> dict[str, Any]:
        return {"thoughts": self.thoughts}

    def html(self) -> str:
        """The canvas at the present step, what was decoded when, and the alternatives at the present position."""
        thoughts_of = zip(self._records, self._frames, self.detail["sides"], strict=True)
        sides = [self._side(record, frames, thought) for record, frames, thought in thoughts_of]
        return str(rendered("widgets/denoising.html.j2", message=self.message, sides=sides))

    def _side(self, record: Record, frames: Frames, thought: dict[str, Any]) -> dict[str, Any]:
        """What the picture shows of one run."""
        step, n = min(self.step, len(frames.ids) - 1), len(frames.kind)
        end = min(self.first + _SHOWN, n)
        rows = [[visible(text), chance] for text, chance in thought["alternatives"]]
        return {
            "title": title(record),
            "step": step,
            "n_steps": record.n_steps,
            "tokens": _tokens(record, frames, step, range(self.first, end)),
            "part": "" if (self.first, end) == (0, n) else f"{self.first} to {end - 1}",
            "positions": n,
            "decoded": heat_html(
                packed(_commits(record, frames)), "Step of commit, of positions (across) by step (down)"
            ),
            "place": f"position {self.position}, step {thought['step']}, layer {self.layer}",
            "alternatives": numbers_html(["alternative", "probability"], rows) if rows else "",
        }


def _telling(record: Record, row: int, step: int, position: int) -> int:
    """The step whose thoughts are shown: with the finished text, that which committed the position."""
    committed = int(record.committed_at[row, position])
    return committed if step >= record.n_steps and committed >= 0 else step


def _commits(record: Record, frames: Frames) -> np.ndarray:
    """[frame, position]: the step that committed what stands there; NaN for masks and for what was there before."""
    there = (frames.ids != mask_id(record)) & (frames.committed >= 0)
    return np.where(there, frames.committed, np.nan).astype("f4")


def _check_pair(record: Record, other: Record) -> None:
    same = record.tokens.shape == other.tokens.shape and equal(record.is_prompt, other.is_prompt)
    if not same or not equal(record.tokens[record.is_prompt], other.tokens[other.is_prompt]):
        raise ValueError(
            f"Denoising got two runs, of {list(record.tokens.shape)} and {list(other.tokens.shape)} tokens (batch, "
            f"position), with unlike prompts or lengths; expected the same prompts and max_new_tokens; run both alike"
        )


def _tokens(record: Record, frames: Frames, step: int, shown: range) -> list[tuple[str, str, str, bool]]:
    """The tokens that are no padding: the colours behind and of each, "" where nobody committed it; which are dim."""
    found, mask = [], mask_id(record)
    for position in shown:
        token, at = int(frames.ids[step, position]), int(frames.committed[position])
        kind = POSITION_KINDS[frames.kind[position]]
        if kind == "padding":
            continue
        masked = kind == "generated" and token == mask
        text, colour = MASK_SIGN if masked else piece(record, token), ""
        if not masked and kind == "generated" and at >= 0:
            colour = ramp(at / max(1, record.n_steps - 1))
        found.append((text, colour, ink_on(colour) if colour else "", frames.left_out(step, position)))
    return found

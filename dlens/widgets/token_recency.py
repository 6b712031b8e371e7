"""How much more alike near tokens are than far ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
import traitlets

from dlens.html import rendered
from dlens.measures import Recency
from dlens.tracing.records.record import Record
from dlens.widgets.denoising_numbers import piece, title
from dlens.widgets.layer_collapse_numbers import at_layer, check_row, held_layers, steps_of
from dlens.widgets.panel import Asked, Panel, corrected, css, esm, heat_html, numbers_html, packed
from dlens.widgets.sources import as_trace, asked_run, watched
from dlens.widgets.token_recency_numbers import (
    ALL_LEVELS,
    DistanceProfile,
    from_measure,
    from_stream,
    levels_of,
    noise_of,
    recency_of,
    token_similarity,
)

__all__ = ["TokenRecency"]

_SIDE = 256
_NEW_TOKENS = 32


@final
class TokenRecency(Panel):
    """Similarity of two tokens by their distance, at a layer and noise level, for several models on the same axes;
    the recency index of every layer; and token by token at one step, model beside model.

    The first two are read from `.measure(dlens.Recency())` where the record has it (over all prompts and steps), else
    from the stream of the chosen step, `.capture("resid_post", steps=[...])`, which the last always needs. Models are
    run once on a short prompt. Maps of more than 256 positions show means of neighbours, and say so.

    State that the page changes and that may be set: `layer`, `noise` (bin 0 to 9, -1 for all), `chosen` (the model,
    counted from 0, among whose steps `step` is; others show the nearest that they have), `step`, `position`,
    `position_b`. Where one is set to what the records do not have, the nearest is shown, and `message` says so.

    Args:
        sources: a record, or anything `dlens.trace` takes; or several as a list or by name.
        prompt: for models; the first words of the shipped text by default.
        max_new_tokens: for models; 32 by default.
        row: which row of the batch.

    Raises:
        ValueError, IndexError: a record holds nothing to show (it says what to capture); a prompt or length where all
            are records.

    Examples:
        >>> from dlens.widgets import TokenRecency
        >>> widget = TokenRecency({"AR": "trio/ar", "diffusion": "trio/diffusion"}, max_new_tokens=4)
        >>> [profile["name"] for profile in widget.profiles]
        ['AR', 'diffusion']
        >>> widget.html().startswith("<")
        True
    """

    _esm = esm("token_recency")
    _css = css("token_recency")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    levels = traitlets.List(traitlets.Int()).tag(sync=True)
    profiles = traitlets.List().tag(sync=True)
    steps = traitlets.List(traitlets.Int()).tag(sync=True)
    noises = traitlets.List().tag(sync=True)
    matrix = traitlets.Dict().tag(sync=True)
    matrices = traitlets.List().tag(sync=True)
    group = traitlets.Int(1).tag(sync=True)
    pair = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    noise = traitlets.Int(ALL_LEVELS).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    position_b = traitlets.Int(0).tag(sync=True)

    def __init__(self, sources: Any, *, prompt: Any = None, max_new_tokens: int | None = None, row: int = 0) -> None:
        named = _named(sources)
        run = asked_run([source for _, source in named], prompt, max_new_tokens, _NEW_TOKENS)
        records = [_record(source, *run) for _, source in named]
        for record in records:
            _check(record, row)
        self._records, self._row = records, row
        self._correction = self._about = ""
        layers = max(record.n_layers for record in records)
        super().__init__(
            names=[name or title(record) for (name, _), record in zip(named, records, strict=True)],
            layers=layers,
            layer=layers // 2,
            levels=sorted({level for record in records for level in levels_of(record)}),
        )
        self._choose(None)
        self._draw_profiles(None)
        self.observe(self._choose, "chosen")
        self.observe(self._draw_profiles, ["layer", "noise", "step", "chosen"])
        self.observe(self._draw_matrix, ["layer", "step", "chosen"])
        self.observe(self._draw_pair, ["position", "position_b"])

    @traitlets.validate("layer", "noise", "chosen", "step")
    def _inside(self, proposal: Any) -> int:
        """Values outside become the nearest inside."""
        name, value = proposal.trait.name, proposal.value
        held = {
            "layer": range(self.layers),
            "noise": [ALL_LEVELS, *self.levels],
            "chosen": range(len(self.names)),
            "step": self.steps or [0],
        }[name]
        nearest = min(held, key=lambda each: abs(each - value))
        self._say(corrected({"noise": "noise level", "chosen": "model"}.get(name, str(name)), value, nearest))
        return nearest

    def _say(self, correction: str) -> None:
        """What was corrected, before what is missing for the tokens."""
        self._correction = correction
        self.message = " ".join(part for part in (correction, self._about) if part)

    def _choose(self, change: Any) -> None:
        """Another model's tokens."""
        record = self._records[self.chosen]
        with self.hold_sync():
            self.steps = list(steps_of(record))
            self.noises = [noise_of(record, self._row, step) for step in self.steps]
            self.step = self.step if self.step in self.steps else (self.steps or [0])[0]
            self._draw_matrix(None)

    def _draw_profiles(self, change: Any) -> None:
        found = [self._profile(number, record) for number, record in enumerate(self._records)]
        self.profiles = [
            {
                "name": name,
                "similarity": packed([] if profile is None else profile.similarity.astype("<f4")),
                "index": packed([] if profile is None else profile.index.astype("<f4")),
                "about": "nothing measured here" if profile is None else profile.about,
                "pairs": packed([] if profile is None else profile.pairs.astype("<f4")),
                "layer": self.layer,
                "noise": self.noise,
            }
            for name, profile in zip(self.names, found, strict=True)
        ]

    def _profile(self, number: int, record: Record) -> DistanceProfile | None:
        if self.layer >= record.n_layers:
            return None
        if recency_of(record) is not None:
            return from_measure(record, self.layer, self.noise)
        held = steps_of(record)
        step = self.step if number == self.chosen and self.step in held else held[0]
        return from_stream(record, self._row, self.layer, step)

    def _draw_matrix(self, change: Any) -> None:
        record = self._records[self.chosen]
        self.matrices = [self._tokens(number) for number in range(len(self._records))]
        if not self.steps or self.layer >= record.n_layers:
            self.matrix, self.pair = {}, {}
            need = ".capture('resid_post', steps=[0])" if not self.steps else f"a layer below {record.n_layers}"
            self._about = f"No tokens to show for {self.names[self.chosen]}: it needs {need}."
            self._say(self._correction)
            return
        with self.hold_sync():
            self._about = ""
            self._say(self._correction)
            shown = self.matrices[self.chosen]
            self.group = shown["group"]
            self.matrix = {key: shown[key] for key in ("data", "shape", "dtype", "layer", "step", "group")}
            self.matrix |= {"chosen": self.chosen}
            self._draw_pair(None)

    def _tokens(self, number: int) -> dict[str, Any]:
        """A model token by token, at the chosen step or the nearest that it has; nothing where it has none."""
        record = self._records[number]
        held = steps_of(record)
        if not held or self.layer >= record.n_layers:
            return {}
        step = min(held, key=lambda each: abs(each - self.step))
        real = (~record.is_pad[self._row]).nonzero()[:, 0].tolist()
        group = -(-len(real) // _SIDE)
        cosines = token_similarity(record, self._row, self.layer, step, group)
        ids = self._ids(record, step)
        of = {"name": self.names[number], "layer": self.layer, "step": step, "group": group, "first": real[0]}
        return packed(cosines.numpy()) | of | {"tokens": [piece(record, ids[at]) for at in real[::group]]}

    def _ids(self, record: Record, step: int) -> list[int]:
        return (record.tokens if record.canvas is None else record.canvas[step])[self._row].tolist()

    def _asked(self) -> list[Asked]:
        steps = sorted({step for record in self._records for step in steps_of(record)}) or [0]
        profiles = Asked({"layer": range(self.layers), "noise": [ALL_LEVELS, *self.levels]}, ("profiles",))
        chosen = {"chosen": range(len(self.names)), "step": steps, "layer": range(self.layers)}
        return [
            Asked({"chosen": chosen["chosen"]}, ("steps", "noises", "step")),
            Asked(chosen, ("matrix", "matrices", "message")),
            profiles,
        ]

    def _draw_pair(self, change: Any) -> None:
        if not self.matrix:
            return
        record = self._records[self.chosen]
        h = at_layer(record, self._row, self.step, self.layer)
        positions = (~record.is_pad[self._row]).nonzero()[:, 0].tolist()
        at = [min(max(0, each), len(h) - 1) for each in (self.position, self.position_b)]
        ids = self._ids(record, self.step)
        cosine = torch.nn.functional.cosine_similarity(h[at[0]], h[at[1]], dim=0)
        self.pair = {
            "positions": [positions[i] for i in at],
            "tokens": [piece(record, ids[positions[i]]) for i in at],
            "cosine": float(cosine),
        }

    def html(self) -> str:
        """The profiles, the recency index and the token map that are shown."""
        rows = []
        for name, profile in zip(self.names, self.profiles, strict=True):
            near = _unpacked(profile["similarity"])
            index = _unpacked(profile["index"])
            known = index[self.layer] if self.layer < len(index) else float("nan")
            at = [near[d - 1] if d <= len(near) else float("nan") for d in _DISTANCES]
            rows.append([name, profile["about"], known, *at])
        columns = ["model", "from", "recency index", *(f"distance {d}" for d in _DISTANCES)]
        html = rendered(
            "widgets/token_recency.html.j2",
            layer=self.layer,
            profiles=numbers_html(columns, rows),
            message=self.message,
            matrices=[
                heat_html(_off_diagonal(held), f"{held['name']}, step {held['step']}: token by token")
                for held in self.matrices
                if held
            ],
        )
        return str(html)


def _off_diagonal(matrix: dict[str, Any]) -> dict[str, Any]:
    """The same without what each token has in common with itself."""
    values = np.frombuffer(matrix["data"], "<f4").reshape(matrix["shape"]).copy()
    np.fill_diagonal(values, np.nan)
    return packed(values)


_DISTANCES = (1, 2, 4, 8, 16, 32)


def _named(sources: Any) -> list[tuple[str, Any]]:
    """Sources with their names; "" where nobody gave one."""
    if isinstance(sources, Mapping):
        found = [(str(name), source) for name, source in sources.items()]
    elif isinstance(sources, Sequence) and not isinstance(sources, str):
        found = [("", source) for source in sources]
    else:
        found = [("", sources)]
    if not found:
        raise ValueError("TokenRecency got nothing; expected a record or a model; give one, or several by name")
    return found


def _record(source: Any, prompt: Any, max_new_tokens: int) -> Record:
    if isinstance(source, Record):
        return source
    return watched(as_trace(source), prompt, max_new_tokens, (Recency(),))


def _check(record: Record, row: int) -> None:
    check_row(record, row, "TokenRecency")
    if recency_of(record) is None and not steps_of(record):
        raise ValueError(
            f"TokenRecency got a record that holds {held_layers(record)} and no recency; expected the measure, or "
            f"resid_post of all {record.n_layers} layers; add .measure(dlens.Recency()), or "
            f".capture('resid_post', steps=[0]) for token by token"
        )


def _unpacked(values: dict[str, Any]) -> list[float]:
    return torch.frombuffer(bytearray(values["data"]), dtype=torch.float32).tolist() if values["data"] else []

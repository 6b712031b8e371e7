"""Attention patterns of a run as small arrays: every head as a thumbnail, and one in full with its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dlens.ops.base.given import as_index
from dlens.tracing.chain import Trace
from dlens.tracing.records.record import Record
from dlens.widgets.denoising_numbers import piece
from dlens.widgets.sources import spread

__all__ = ["Patterns", "ablated", "line_of_python", "patterned", "patterns_of"]

Places = tuple[tuple[int, int], ...]
"""Pairs of layer and head."""


@dataclass(frozen=True)
class Patterns:
    """The patterns of one row of a record.

    Args:
        record: that captured `pattern`.
        row: which row of its batch.
        layers, steps: those that it holds.
        heads: how many each layer has.
    """

    record: Record
    row: int
    layers: tuple[int, ...]
    steps: tuple[int, ...]
    heads: int

    def whole(self, layer: int, head: int, step: int, most: int) -> Float[np.ndarray, "position position_b"]:
        """One head's pattern over real positions; means of neighbours where there are more than `most`."""
        pattern = self._at(step)[self.layers.index(layer), head]
        return _shrunk(pattern[None], most)[0]

    def thumbnails(self, step: int, most: int) -> Float[np.ndarray, "layer head position position_b"]:
        """Every head's pattern, at most so many rows and columns each."""
        values = self._at(step)
        small = _shrunk(values.flatten(0, 1), most)
        return rearrange(small, "(layer head) q k -> layer head q k", head=self.heads)

    def tokens(self, step: int) -> list[str]:
        """The text of every real position, as it went into the step."""
        record = self.record
        ids = (record.tokens if record.canvas is None else record.canvas[step])[self.row].tolist()
        return [piece(record, ids[position]) for position in self._real().tolist()]

    def noise(self, step: int) -> float | None:
        """The share of positions that were still to be decoded; None for a model without noise."""
        record = self.record
        if record.canvas is None:
            return None
        decoded = record.committed_at[self.row]
        return float((decoded >= step).sum() / max(1, int((decoded >= 0).sum())))

    def _real(self) -> Tensor:
        return (~self.record.is_pad[self.row]).nonzero()[:, 0]

    def _at(self, step: int) -> Float[Tensor, "layer head position position_b"]:
        kept, real = self.record.captured["pattern"], self._real()
        values = kept.values[kept.steps.index(step)] if "step" in kept.dims else kept.values
        values = values[:, self.row].float()
        real = real[real < values.shape[-1]]
        return values[:, :, real][..., real]


def patterns_of(record: Record, row: int) -> Patterns:
    """What a record offers to the widget.

    Raises:
        ValueError, IndexError: it captured no patterns, or has no such row.
    """
    kept = record.captured.get("pattern")
    if kept is None or "layer" not in kept.dims:
        held = ", ".join(record) or "nothing"
        raise ValueError(
            f"Heads got a record that holds {held}; expected the patterns of its layers; add .capture('pattern')"
        )
    if not 0 <= as_index(row, "row") < len(record.tokens):
        raise IndexError(f"row {row} of {len(record.tokens)}; expected 0 to {len(record.tokens) - 1}; give another")
    steps = kept.steps if "step" in kept.dims else (0,)
    return Patterns(record, row, kept.layers, steps, kept.values.shape[kept.dims.index("head")])


def _shrunk(patterns: Float[Tensor, "n position position_b"], most: int) -> Float[np.ndarray, "n a b"]:
    if max(patterns.shape[1:]) <= most:
        return patterns.numpy()
    sides = (min(most, patterns.shape[1]), min(most, patterns.shape[2]))
    return torch.nn.functional.adaptive_avg_pool2d(patterns[None], sides)[0].numpy()


def patterned(chain: Trace, prompt: object, max_new_tokens: int) -> Record:
    """A run that keeps the patterns of every head: of a diffusion model at eight steps spread over its decoding, of an
    autoregressive one in a forward over the finished text."""
    if chain.model.family.objective == "diffusion":
        steps = spread(max_new_tokens)
        return chain.capture("pattern", steps=steps).generate(prompt, max_new_tokens, progress=False)
    run = chain.generate(prompt, max_new_tokens, progress=False)
    rows = [row[~pad].tolist() for row, pad in zip(run.tokens, run.is_pad, strict=True)]
    return replace(chain.capture("pattern").forward(rows), text=run.text)


def ablated(chain: Trace, places: Places) -> Trace:
    """A trace without some heads: what they put together is set to zero.

    Examples:
        >>> import dlens
        >>> print(ablated(dlens.trace("trio/ar"), ((3, 0), (3, 2), (5, 1))))
        trace of trio/ar (16 layers, autoregressive)
          ablate all channels to zero in heads 0, 2 of z of layers 3
          ablate all channels to zero in heads 1 of z of layers 5
    """
    for layer in sorted({layer for layer, _ in places}):
        chain = chain.ablate(layer, at="z", heads=[head for at, head in places if at == layer])
    return chain


def line_of_python(name: str, places: Places) -> str:
    """The same as one line of Python.

    Examples:
        >>> line_of_python("trio/ar", ((3, 0), (3, 2)))
        "dlens.trace('trio/ar').ablate(3, at='z', heads=[0, 2])"
    """
    calls = [
        f".ablate({layer}, at='z', heads={[head for at, head in places if at == layer]})"
        for layer in sorted({layer for layer, _ in places})
    ]
    return f"dlens.trace({name!r})" + "".join(calls)

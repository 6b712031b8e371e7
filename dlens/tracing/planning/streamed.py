"""What a stream keeps: read off the captures of a chain, and refused where it cannot be rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dlens.axes import POINTS
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.ops.base.tokens import TokenSpec, token_words
from dlens.ops.capture import Capture

__all__ = ["Streamed", "StreamedPoint", "streamed"]


@dataclass(frozen=True)
class StreamedPoint:
    """A hook point of a stream.

    Args:
        point: its short form.
        layers: the layers that it is kept at; none for a point outside of blocks.
    """

    point: str
    layers: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of a row."""
        return POINTS[self.point].axes[2:]


@dataclass(frozen=True)
class Streamed:
    """What a stream keeps.

    Args:
        tokens: which positions.
        ops: the chain, its captures with all positions: which are kept is chosen batch by batch.
        points: what is kept of each.
    """

    tokens: TokenSpec
    ops: tuple[Op, ...]
    points: tuple[StreamedPoint, ...]


def streamed(ops: Sequence[Op], target: Target) -> Streamed:
    """What a chain's stream keeps.

    Raises:
        ValueError: nothing is captured, something that a stream cannot hold, or captures of unlike rows.
    """
    captures = [op for op in ops if isinstance(op, Capture)]
    others = [op for op in ops if op.keeps() is not None and not isinstance(op, Capture)]
    if not captures or others:
        came = f"'{others[0].words()}'" if others else "a trace without captures"
        raise ValueError(
            f"stream got {came}; expected captures, and operations that change the run; write "
            f".capture('resid_post').stream(...), and run measures and gradients with .forward or .generate"
        )
    for op in captures:
        _refuse_unlike(op, captures[0])
    layers: dict[str, set[int]] = {}
    for op in captures:
        layers.setdefault(op.point, set()).update(op.places(target) if op.single is None else (op.single,))
    return Streamed(
        tokens=captures[0].tokens,
        ops=tuple(replace(op, tokens="all") if isinstance(op, Capture) else op for op in ops),
        points=tuple(StreamedPoint(point, tuple(sorted(own))) for point, own in layers.items()),
    )


def _refuse_unlike(op: Capture, first: Capture) -> None:
    """Refuse a capture that has other rows than the first, or rows of no one size."""
    if "position_b" in POINTS[op.point].axes:
        raise ValueError(
            f"stream got '{op.words()}', which has an axis of keys; expected points whose rows have one size; keep it "
            f"in a record, or measure it"
        )
    if isinstance(op.tokens, torch.Tensor):
        raise ValueError(
            f"stream got tokens= as {token_words(op.tokens)}; expected a word, a slice or a list of positions, as each "
            f"batch has rows of its own; select rows when they are read"
        )
    if (op.scope, op.tokens) != (first.scope, first.tokens):
        raise ValueError(
            f"stream got '{first.words()}' and '{op.words()}'; expected the same steps= and tokens= of both, as they "
            f"share their rows; stream them into folders of their own"
        )

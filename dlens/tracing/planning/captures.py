"""How large captured tensors will be: their axes and bytes, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlens.axes import BLOCK_POINTS
from dlens.models.model import Model
from dlens.ops.capture import Capture
from dlens.ops.op import Op, Target
from dlens.tracing.planning.shape import RunKind, RunShape

__all__ = ["capture_bytes", "captured_dims", "captured_layers", "refuse_large_captures"]


def captured_layers(op: Capture, target: Target) -> tuple[int, ...]:
    """The layers along its axis `layer`; none for a point outside of blocks."""
    return target.layers(op.layers) if op.point in BLOCK_POINTS else ()


def captured_dims(op: Capture, kind: RunKind) -> tuple[str, ...]:
    """The axes of a captured tensor in the record."""
    lead: tuple[str, ...] = ("step",) if kind == "denoising" else ()
    if op.point in BLOCK_POINTS and op.single is None:
        lead += ("layer",)
    if op.point == "pattern":
        return (*lead, "batch", "head", "position", "position_b")
    return (*lead, "batch", "position", "vocab" if op.point == "logits" else "d_model")


def capture_bytes(ops: Sequence[Op], model: Model, target: Target, shape: RunShape) -> int:
    """The memory that captures will take, in bytes, computed from shapes alone."""
    total = 0
    for op in ops:
        if isinstance(op, Capture):
            n_steps = len(op.scope.resolve(shape.n_steps)) if shape.kind == "denoising" else 1
            n_layers = max(1, len(captured_layers(op, target)))
            numbers = n_steps * n_layers * shape.batch * shape.width * _numbers_a_position(op, model, shape)
            total += numbers * torch.finfo(model.dtype).bits // 8
    return total


def _numbers_a_position(op: Capture, model: Model, shape: RunShape) -> int:
    if op.point == "logits":
        return model.vocab_size
    if op.point == "pattern":
        return int(model.config.num_attention_heads) * shape.width
    return model.d_model


def _in_words(size: int) -> str:
    """Bytes as people read them.

    Examples:
        >>> _in_words(3 * 2**30), _in_words(2**20)
        ('3.00 GiB', '1.00 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def refuse_large_captures(needed: int, limit: int) -> None:
    """Refuse captures that would take more memory than the limit.

    Raises:
        MemoryError: before anything is computed.
    """
    if needed > limit:
        raise MemoryError(
            f"the captures need {_in_words(needed)}; expected at most {_in_words(limit)}; capture fewer "
            f"layers or steps, reduce with a measure while the model runs, or pass capture_limit={needed}"
        )

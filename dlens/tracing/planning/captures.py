"""What captured tensors will be: their axes, and the memory they take, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from dlens.axes import POINTS
from dlens.models.model import Model
from dlens.models.proofs.sites import point_widths
from dlens.ops.base.keep import Keep
from dlens.ops.base.op import Op
from dlens.ops.base.target import RunKind, RunShape, Target
from dlens.ops.capture import Capture

__all__ = ["capture_bytes", "captured_dims", "refuse_large_captures"]


def captured_dims(op: Keep, kind: RunKind) -> tuple[str, ...]:
    """The axes of a captured tensor in the record."""
    lead: tuple[str, ...] = ("step",) if kind == "denoising" else ()
    if POINTS[op.point].in_block and op.single is None:
        lead += ("layer",)
    return (*lead, *POINTS[op.point].axes)


def capture_bytes(ops: Sequence[Op], model: Model, target: Target, shape: RunShape) -> int:
    """The memory that captures will take, in bytes, computed from shapes alone."""
    total = 0
    if any(isinstance(op, Keep) and POINTS[op.point].inner for op in ops) and not target.widths:
        target = replace(target, widths=point_widths(model, seen=False))
    for op in ops:
        if isinstance(op, Keep):
            n_steps = len(op.scope.resolve(shape.n_steps)) if shape.kind == "denoising" else 1
            rows = n_steps * shape.batch * shape.width
            numbers = rows * max(1, len(op.places(target))) * _numbers_a_position(op, model, target, shape)
            dtype = op.dtype if isinstance(op, Capture) and op.dtype else model.dtype
            total += numbers * torch.finfo(dtype).bits // 8
    return total


def _numbers_a_position(op: Keep, model: Model, target: Target, shape: RunShape) -> int:
    layers = None if op.single is None else (op.single,)
    width = target.width(op.point, layers or op.layers) if POINTS[op.point].in_block else None
    sizes = {
        "batch": 1,
        "position": 1,
        "head": model.n_heads,
        "kv_head": model.n_kv_heads,
        "d_model": model.d_model,
        "scale": 1,
        "d_head": width or 1,
        "d_mlp": width or 1,
        "vocab": model.vocab_size,
        "position_b": shape.width,
    }
    return math.prod(sizes[axis] for axis in POINTS[op.point].axes)


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

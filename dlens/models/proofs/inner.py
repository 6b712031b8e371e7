"""Proof that queries, keys and values are where a layout says, and that attention can be computed step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from dlens.axes import POINTS, Logits, TokenIds
from dlens.models.attention import Kernels
from dlens.models.family import Layout
from dlens.models.model import Model
from dlens.models.proofs.sites import QKV, Seen, same_rows, widths, without

__all__ = ["with_inner"]

_NO_HEADS = "its config says nothing of heads (num_attention_heads), as that of a model without attention"
_KERNEL = tuple(name for name, point in POINTS.items() if point.kernel)
# How far attention computed step by step may move a logit, in roundings of the largest.
_ROUNDINGS = 256


def with_inner(model: Model, ids: TokenIds, seen: Seen, shared: Seen) -> Layout:
    """The layout without the points within its halves that this model turned out not to have.

    Args:
        model: what was loaded and proved so far.
        ids: one row of unlike tokens.
        seen: the same row, at every point.
        shared: of `shared_by_rows`.
    """
    absent = _unlike_modules(model, seen) | _unlike_projections(model, shared)
    kernel = _kernel(model, ids, seen.logits) if model.names_heads else _Kernel(_NO_HEADS)
    if kernel.reason is not None:
        absent |= dict.fromkeys(_KERNEL, kernel.reason)
    if kernel.other is not None:
        absent |= dict.fromkeys((*QKV, "z"), f"its block {kernel.other} mixes positions by other means than attention")
    return replace(without(model.layout, absent), direct=kernel.direct)


@final
@dataclass(frozen=True)
class _Kernel:
    """What came of computing attention step by step.

    Args:
        reason: why that cannot be done, None where it gives the model's own logits.
        direct: whether the model's code calls PyTorch's attention itself.
        other: the first block that calls no attention function, where others do.
    """

    reason: str | None
    direct: bool = False
    other: int | None = None


def _unlike_modules(model: Model, seen: Seen) -> dict[str, str]:
    """Points whose module does not run once a forward, or does not hold whole heads."""
    found, known = dict[str, str](), widths(seen)
    for point, site in model.layout.sites.items():
        if POINTS[point].head_axis and not model.names_heads:
            found[point] = _NO_HEADS
            continue
        counts = {seen.counts[layer, model.layout.at(layer).sites[point].path] for layer in range(model.n_layers)}
        if counts != {1}:
            found[point] = f"its {site.path!r} runs {max(counts - {1})} times in a forward"
        n_heads = model.n_kv_heads if POINTS[point].head_axis == "kv_head" else model.n_heads
        if any(width % n_heads for (_, at), width in known.items() if at == point and site.heads):
            found[point] = f"its {site.path!r} is not as wide as {n_heads} heads"
    return found


def _unlike_projections(model: Model, shared: Seen) -> dict[str, str]:
    """Queries, keys and values that are not all that attention is made of: two texts that share them get other z."""
    if not {*QKV, "z"} <= set(model.layout.sites):
        return {}
    found = [shared.values.get((layer, "z")) for layer in range(model.n_layers)]
    if all(z is None or same_rows(z, z, 2) for z in found):
        return {}
    return dict.fromkeys(QKV, "its attention is not made of what these projections give alone")


def _kernel(model: Model, ids: TokenIds, own: Logits) -> _Kernel:
    """Compute attention of every block step by step."""
    calls: Counter[int] = Counter()

    def visit(block: int, point: str, value: Tensor) -> Tensor:
        calls[block] += point == "pattern"
        return value

    taken = Kernels(model, visit)
    reason = _unlike_kernel(model, ids, own, taken, calls)
    silent = [block for block in range(model.n_layers) if not calls[block]]
    return _Kernel(reason, taken.direct, silent[0] if silent and calls else None)


def _unlike_kernel(model: Model, ids: TokenIds, own: Logits, taken: Kernels, calls: Counter[int]) -> str | None:
    try:
        with taken.open():
            taken.choose(range(model.n_layers))
            ours = model.module(**model.family.inputs(ids, None)).logits
    except Exception as error:
        return f"its attention cannot be computed step by step ({error})"
    if (other := next((block for block in range(model.n_layers) if calls[block] != 1), None)) is not None:
        return (
            f"its block {other} calls {calls[other] or 'no'} attention functions, of the library or of PyTorch, where "
            f"one is expected: it has no attention, or its code computes it by itself (where it has a choice of "
            f"kernels, load with attn_implementation='sdpa')"
        )
    tolerance = _ROUNDINGS * torch.finfo(own.dtype).eps * float(own.abs().max())
    if not bool(((ours - own).abs() <= tolerance).all()):
        return "its attention computed step by step gives other logits"
    return None

"""Proof that queries, keys and values are where a layout says, and that attention can be computed step by step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.axes import POINTS, TokenIds
from dlens.models.attention import Kernels
from dlens.models.family import Layout
from dlens.models.model import Model
from dlens.models.proofs.sites import inner_widths, observe, same_rows, without

__all__ = ["with_inner"]

_NO_HEADS = "its config says nothing of heads (num_attention_heads), as that of a model without attention"
_QKV = ("q", "k", "v")
_KERNEL = tuple(name for name, point in POINTS.items() if point.kernel)
# How far attention computed step by step may move a logit, in roundings of the largest.
_ROUNDINGS = 256


def with_inner(model: Model, ids: TokenIds) -> Layout:
    """The layout without the points within its halves that this model turned out not to have.

    Args:
        model: what was loaded and proved so far.
        ids: one row of unlike tokens.
    """
    absent = _unlike_modules(model, ids) | _unlike_projections(model, ids)
    seen = _kernel(model, ids) if model.names_heads else _Kernel(_NO_HEADS)
    if seen.reason is not None:
        absent |= dict.fromkeys(_KERNEL, seen.reason)
    if seen.other is not None:
        absent |= dict.fromkeys((*_QKV, "z"), f"its block {seen.other} mixes positions by other means than attention")
    return replace(without(model.layout, absent), direct=seen.direct)


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


def _unlike_modules(model: Model, ids: TokenIds) -> dict[str, str]:
    """Points whose module does not run once a forward, or does not hold whole heads."""
    seen, found, known = observe(model, ids), {}, inner_widths(model)
    for point, site in model.layout.sites.items():
        if POINTS[point].head_axis and not model.names_heads:
            found[point] = _NO_HEADS
            continue
        counts = {seen.counts[layer, model.layout.at(layer).sites[point].path] for layer in range(model.n_layers)}
        if counts != {1}:
            found[point] = f"its {site.path!r} runs {max(counts - {1})} times in a forward"
        n_heads = model.n_kv_heads if POINTS[point].head_axis == "kv_head" else model.n_heads
        widths = {width for (_, at), width in known.items() if at == point and site.heads}
        if any(width % n_heads for width in widths):
            found[point] = f"its {site.path!r} is not as wide as {n_heads} heads"
    return found


def _unlike_projections(model: Model, ids: TokenIds) -> dict[str, str]:
    """Queries, keys and values that are not all that attention is made of: two texts that share them get other z."""
    shared = tuple(point for point in model.layout.sites if point in _QKV)
    if len(shared) < len(_QKV) or "z" not in model.layout.sites:
        return {}
    values = observe(model, torch.cat([ids, ids.flip(-1)]), shared=shared).values
    found = [values.get((layer, "z")) for layer in range(model.n_layers)]
    if all(z is None or same_rows(z, z) for z in found):
        return {}
    return dict.fromkeys(_QKV, "its attention is not made of what these projections give alone")


def _kernel(model: Model, ids: TokenIds) -> _Kernel:
    """Compute attention of every block step by step."""
    calls: Counter[int] = Counter()

    def visit(block: int, point: str, value: Tensor) -> Tensor:
        calls[block] += point == "pattern"
        return value

    taken = Kernels(model, visit)
    reason = _unlike_kernel(model, ids, taken, calls)
    silent = [block for block in range(model.n_layers) if not calls[block]]
    return _Kernel(reason, taken.direct, silent[0] if silent and calls else None)


def _unlike_kernel(model: Model, ids: TokenIds, taken: Kernels, calls: Counter[int]) -> str | None:
    own = _logits(model.module, model.family.inputs(ids, None))
    try:
        with taken.open():
            taken.choose(range(model.n_layers))
            ours = _logits(model.module, model.family.inputs(ids, None))
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


def _logits(module: nn.Module, inputs: dict[str, Any]) -> Tensor:
    return module(**inputs).logits

"""What a record offers to be patched into another run."""

from __future__ import annotations

import torch
from torch import Tensor

from dlens.axes import POINTS, parse_point
from dlens.ops.patch import Source
from dlens.tracing.records.record import Record

__all__ = ["source_of"]


def source_of(record: Record, point: str) -> Source:
    """What a record offers to patch at a point, captured under its short form or under full names.

    Raises:
        KeyError: it was not captured.
        ValueError: what was captured does not cover all positions, or other steps at each layer.
    """
    names = [name for name in record.captured if parse_point(name).point == point] or [point]
    values, layers = _joined(record, point, names)
    dims, coords = record.dims(names[0]), record.coords(names[0])
    decoding = record.kind == "decoding"
    computed = record.tokens.shape[-1] - decoding
    positions = coords["position"]
    if positions != list(range(computed)):
        raise ValueError(
            f"the record to patch from holds {len(positions)} positions of {point}; expected all {computed} that the "
            f"run computed, as each is patched in its place; capture without steps="
        )
    return Source(
        values=values if "step" in dims else values[None],
        layers=layers,
        steps=tuple(coords["step"]) if "step" in dims else None,
        real=~record.is_pad[:, :computed],
        kind=record.kind,
        width=computed + (record.planned_steps - record.n_steps if decoding else 0),
        # What follows a row's end is padding too, but not of the prompt.
        padding=record.is_pad[:, : int(record.is_prompt.any(0).sum())],
        n_steps=record.n_steps,
        planned_steps=record.planned_steps,
        computed=record.computed,
    )


def _joined(record: Record, point: str, names: list[str]) -> tuple[Tensor, tuple[int, ...]]:
    """The values under all names of a point, joined along the layer axis, and their layers."""
    parts: list[Tensor] = []
    layers: list[int] = []
    others: list[dict[str, list[int]]] = []
    for name in names:
        part, coords = record[name], record.coords(name)
        layer = parse_point(name).layer
        layers += [layer] if layer is not None else coords.pop("layer")
        parts.append(part if layer is None else part.unsqueeze(-len(POINTS[point].axes) - 1))
        others.append(coords)
    if any(coords != others[0] for coords in others):
        raise ValueError(
            f"the record to patch from holds {point} at other steps for each layer; expected the same steps, as all "
            f"layers are patched together; capture the layers with the same steps="
        )
    axis = -len(POINTS[point].axes) - 1
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)), tuple(layers)

"""Patches between runs: what a record offers, and whether it fits a run."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor

from dlens.axes import TokenMask, parse_point
from dlens.ops.patch import Patch, Source
from dlens.tracing.planning.shape import RunShape
from dlens.tracing.records.record import Record

__all__ = ["refuse_mismatch", "source_of"]


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
    )


def _joined(record: Record, point: str, names: list[str]) -> tuple[Tensor, tuple[int, ...]]:
    """The values under all names of a point, joined along the layer axis, and their layers."""
    parts: list[Tensor] = []
    layers: list[int] = []
    others: list[dict[str, list[int]]] = []
    for name in names:
        part, dims, coords = record[name], record.dims(name), record.coords(name)
        layer = parse_point(name).layer
        layers += [layer] if layer is not None else coords.pop("layer")
        parts.append(part if layer is None else part.unsqueeze(dims.index("batch")))
        others.append(coords)
    if any(coords != others[0] for coords in others):
        raise ValueError(
            f"the record to patch from holds {point} at other steps for each layer; expected the same steps, as all "
            f"layers are patched together; capture the layers with the same steps="
        )
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-4)), tuple(layers)


def refuse_mismatch(op: Patch, steps: Set[int], shape: RunShape, real: TokenMask) -> None:
    """Refuse a patch whose record does not correspond to a run, step by step and position by position.

    Args:
        steps: the steps that are patched.
        real: [batch, position] over the whole run.

    Raises:
        ValueError: says what differs.
    """
    source = op.source
    if source.kind != shape.kind:
        raise ValueError(
            f"the record to patch from is of a {source.kind} run; expected one of {shape.kind}, as steps and "
            f"positions of other kinds do not correspond; record a run of the same kind"
        )
    batch, computed = source.values.shape[2:4]
    prompt = source.padding.shape[-1]
    fits = shape.width in (computed, source.width)
    if not fits or (batch, prompt) != (shape.batch, shape.prompt_width):
        raise ValueError(
            f"the record to patch from has {batch} rows of {computed} computed positions, {prompt} of them prompt; "
            f"expected {shape.batch} of {shape.width} and {shape.prompt_width}, as this run has; use the same prompts "
            f"and the same number of new tokens"
        )
    if not torch.equal(source.padding, ~real[:, :prompt].cpu()):
        raise ValueError(
            f"the record to patch from has {source.padding.sum(-1).tolist()} positions of padding in its rows; "
            f"expected {(~real).sum(-1).tolist()}, as prompts correspond row by row; use prompts of the same lengths"
        )
    if source.steps is None:
        return
    missing = sorted(steps - set(source.steps))
    # A run of the same plan that ended early lacks the steps after its end, which are left as they are.
    ran = source.n_steps if source.planned_steps == shape.n_steps else shape.n_steps
    if len(missing) == len(steps) or any(step < ran for step in missing):
        raise ValueError(
            f"the record to patch from lacks steps {missing[:5]}; expected each step that is patched; "
            f"capture them, or limit the patch with steps="
        )

"""Activations of any kind in groups of rows that belong together: one prompt at one step, or at one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlens.axes import POINTS, STATES, TokenMask, parse_point
from dlens.checks import quoted
from dlens.findings.scores.batches import batched, token_rows
from dlens.ops.base.given import Indices, as_indices
from dlens.ops.base.scope import Scope, StepSpec
from dlens.ops.base.tokens import check_tokens
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import Record
from dlens.tracing.streams.activations import Activations
from dlens.tracing.streams.places import Rows

__all__ = ["Asked", "By", "Group", "Source", "source_of"]

By = Literal["layer", "step"]


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one prompt at several entries: at layers of one step, or at steps of one layer.

    Args:
        key: the prompt, and the step or layer that all rows share.
        position: counted from the prompt's first real token, rising.
        token: of the prompt; -1 where it is none of it, or masked, or not known.
        values: what stood there.
    """

    key: tuple[int, int]
    position: Int[Tensor, " row"]
    token: Int[Tensor, " row"]
    values: Float[Tensor, "entry row width"]


@dataclass(frozen=True)
class Asked:
    """Which activations are compared.

    Args:
        by: "layer" or "step", the entries of a group.
        at: the hook point.
        layers, steps: which; None is all.
        tokens: which positions: "all", "prompt", "masked" or "decoded".
        prompts: what models read.
        batch_size: prompts a forward.
    """

    by: By
    at: str
    layers: Indices
    steps: StepSpec
    tokens: str
    prompts: Any
    batch_size: int


@dataclass(frozen=True, eq=False)
class Source:
    """Activations to compare.

    Args:
        name: how results call them.
        entries: the numbers of the layers or steps.
        groups: gives the groups, one after the other.
        device: where they are compared.
    """

    name: str
    entries: tuple[int, ...]
    groups: Callable[[], Iterator[Group]]
    device: torch.device = torch.device("cpu")


def source_of(given: Any, asked: Asked) -> Source:
    """What a user compares, as groups of rows.

    Args:
        given: a record, a trace, a model or its name, a stream, or a tensor [row, width] or [entry, row, width].

    Raises:
        ValueError, IndexError, KeyError: it does not hold what is asked for.
    """
    if isinstance(given, Tensor):
        return _of_tensor(given)
    if isinstance(given, Record):
        return _of_record(given, asked)
    if asked.by == "step":
        raise ValueError(
            f"by='step' of {quoted(given)}; expected the record of a denoising run; pass what trace.capture(...)"
            f".generate(...) returned"
        )
    if isinstance(given, Activations):
        return _of_stream(given, asked)
    return _of_trace(given, asked)


def _of_tensor(given: Tensor) -> Source:
    if given.ndim not in (2, 3) or not given.is_floating_point() or not given.numel():
        raise ValueError(
            f"got a {given.dtype} tensor of shape {tuple(given.shape)}; expected real numbers [row, width] or "
            f"[entry, row, width]; reshape it"
        )
    values = given.detach() if given.ndim == 3 else given.detach()[None]
    position = torch.arange(values.shape[1], device=given.device)
    group = Group((0, 0), position, torch.full_like(position, -1), values)
    return Source("tensor", tuple(range(len(values))), lambda: iter([group]), given.device)


def _of_record(record: Record, asked: Asked, mask: int | None = None, n_before: int = 0) -> Source:
    """The groups of a record; `mask` is the mask token of a forward, `n_before` the prompts before its first."""
    held = _Held(record, asked, _mask_of(record) if mask is None else mask, n_before)
    entries = held.steps if asked.by == "step" else held.layers
    return Source(record.model, entries, held.groups)


def _mask_of(record: Record) -> int | None:
    """The mask token of a denoising run: what stood first at any place that was filled."""
    if record.canvas is None or not bool((record.committed_at >= 0).any()):
        return None
    return int(record.canvas[0][record.committed_at >= 0][0])


@final
class _Held:
    """What a record holds of a point."""

    def __init__(self, record: Record, asked: Asked, mask: int | None, n_before: int) -> None:
        self.record, self.asked, self.mask, self.n_before = record, asked, mask, n_before
        self.real = ~record.is_pad
        self.first = self.real.int().argmax(-1)
        coords, values = record.coords(asked.at), record[asked.at]
        if "position_b" in record.dims(asked.at):
            raise ValueError(
                f"at={asked.at!r} has an axis of keys; expected a point whose rows have one width; use 'z'"
            )
        if "layer" not in coords:
            values = values.unsqueeze(1 if "step" in coords else 0)
        values = values if "step" in coords else values[None]
        self.columns = torch.tensor(coords["position"])
        single = parse_point(asked.at).layer
        known = coords.get("layer", [0 if single is None else single % record.n_layers])
        self.layers = _among(known, asked.layers, record.n_layers)
        self.steps = self._steps(coords.get("step", [0]))
        at = [coords.get("step", [0]).index(step) for step in self.steps]
        # Views where everything is asked for, as it mostly is.
        values = values if len(at) == len(values) else values[at]
        # Tokens that a run did not choose and that stand there in the open.
        self.token = torch.where(record.is_prompt & (record.tokens != self.mask), record.tokens, -1).long()
        self.values = values if len(self.layers) == len(known) else values[:, [known.index(own) for own in self.layers]]
        if asked.by == "step":
            self._refuse_unlike_steps("step" in coords)
        self._chosen(0)

    def _steps(self, known: list[int]) -> tuple[int, ...]:
        if self.asked.steps is None:
            return tuple(known)
        named = Scope(self.asked.steps).resolve(self.record.planned_steps)
        if missing := sorted(named - set(known)):
            raise IndexError(
                f"steps {missing} of a record of {self.asked.at}; expected some of {known}; name these, or capture the "
                f"others too"
            )
        return tuple(sorted(named))

    def _refuse_unlike_steps(self, has_steps: bool) -> None:
        if not has_steps or len(self.layers) != 1:
            came = (
                f"{len(self.layers)} layers" if has_steps else f"a {self.record.kind} run, which has no axis of steps"
            )
            raise ValueError(
                f"by='step' of {came}; expected a denoising run at one layer; name the layer, such as layers=8"
            )
        if self.asked.tokens not in ("all", "prompt"):
            raise ValueError(
                f"tokens={self.asked.tokens!r} with by='step'; expected 'all' or 'prompt', as other positions differ "
                f"from step to step; leave it out"
            )

    def groups(self) -> Iterator[Group]:
        """Row by row: one group of all steps, or one of all layers for each step."""
        for row in range(len(self.real)):
            if self.asked.by == "step":
                yield self._group(row, self.layers[0], self.values[:, 0, row], self._chosen(0)[row])
                continue
            for number, step in enumerate(self.steps):
                yield self._group(row, step, self.values[number, :, row], self._chosen(step)[row])

    def _group(self, row: int, other: int, values: Tensor, chosen: Bool[Tensor, " position"]) -> Group:
        """The chosen positions that are there: what was not captured, or not computed, is NaN."""
        values = values.flatten(2)
        there = chosen[self.columns] & ~values[..., 0].isnan().any(0)
        columns = self.columns[there]
        position = columns - self.first[row]
        return Group((self.n_before + row, other), position, self.token[row, columns], values[:, there])

    def _chosen(self, step: int) -> TokenMask:
        """The positions that `tokens` names, at a step."""
        record, tokens, mask = self.record, self.asked.tokens, self.mask
        if tokens == "all":
            return self.real
        if record.kind == "decoding" and tokens != "masked":
            return record.is_prompt & self.real if tokens == "prompt" else ~record.is_prompt & self.real
        if mask is None and tokens != "prompt":
            raise ValueError(
                f"tokens={tokens!r} of the record of a {record.kind} run of {record.model}; expected 'all' or "
                f"'prompt', as it does not say what its masks are; pass the model with prompts=, or leave it out"
            )
        canvas = record.tokens if record.canvas is None else record.canvas[step]
        start = record.tokens if record.canvas is None else record.canvas[0]
        generated = torch.zeros_like(self.real) if mask is None else (start == mask) & self.real
        masked = generated & (canvas == mask) if mask is not None else generated
        return {"prompt": self.real & ~generated, "masked": masked, "decoded": generated & ~masked}[tokens]


def _among(known: Sequence[int], asked: Indices, n_layers: int) -> tuple[int, ...]:
    """The layers that are asked for, among those that are there."""
    named = as_indices(asked, "layer", n_layers)
    if named is None:
        return tuple(known)
    found = tuple(dict.fromkeys(layer % n_layers for layer in named))
    if missing := [layer for layer in found if layer not in known]:
        raise IndexError(
            f"layers {missing}; expected some of {list(known)}, which are there; name these, or capture the others too"
        )
    return found


def _of_stream(kept: Activations, asked: Asked) -> Source:
    if kept.point is None:
        kept = kept.select(point=asked.at)
    kept = kept.select(
        layers=None if not kept.layers else asked.layers,
        steps=asked.steps,
        states=None if asked.tokens == "all" else asked.tokens,
    )

    def groups() -> Iterator[Group]:
        for parts in kept.by_file():
            values = torch.stack([part.values.flatten(1) for part in parts])
            yield from _runs(parts[0], values)

    return Source(kept.header.model, kept.layers or (0,), groups)


def _runs(rows: Rows, values: Float[Tensor, "layer row width"]) -> Iterator[Group]:
    """The rows of one prompt at one step follow each other."""
    both = torch.stack([rows.prompt, rows.step], -1)
    keys, counts = both.unique_consecutive(dim=0, return_counts=True)
    start = 0
    for (prompt, step), count in zip(keys.tolist(), counts.tolist(), strict=True):
        own = slice(start, start + count)
        token = torch.where(rows.state == STATES.index("prompt"), rows.token, -1)[own].long()
        yield Group((prompt, step), rows.position[own].long(), token, values[:, own])
        start += count


def _of_trace(given: Any, asked: Asked) -> Source:
    base = given if isinstance(given, Trace) else trace(given)
    if asked.steps is not None:
        raise ValueError(
            f"steps={asked.steps!r} of {base.model.name}; expected the record of a run, as models are compared by one "
            f"forward of each prompt; leave it out, or pass records"
        )
    rows = token_rows(base.model, calibration_texts() if asked.prompts is None else asked.prompts)
    chain = base.capture(asked.at, layers=asked.layers)
    mask = base.model.family.mask_token_id if base.target.has_noise else None
    check_tokens(asked.tokens, base.target)

    def groups() -> Iterator[Group]:
        for number, part in enumerate(batched(rows, asked.batch_size)):
            record = chain.forward(part)
            whole = replace(asked, layers=None)
            yield from _of_record(record, whole, mask, number * asked.batch_size).groups()

    return Source(base.model.name, _places(base, asked), groups, base.model.device)


def _places(base: Trace, asked: Asked) -> tuple[int, ...]:
    """The layers that a trace captures."""
    point = parse_point(asked.at)
    if not POINTS[point.point].in_block:
        return (0,)
    return base.target.layers(base.target.places(asked.layers if point.layer is None else point.layer))

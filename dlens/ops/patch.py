"""Take values of a hook point from another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from dlens.axes import POINTS, TokenMask
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.target import RunShape, Target

__all__ = ["Patch", "Source"]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What another run had at a hook point.

    Args:
        values: [step, layer, ...], then the axes of the point; a step axis of length 1 serves every step (a forward,
            or AR decoding, where each position is computed once).
        layers: the layers that `values` holds.
        steps: the steps that `values` holds; None where the step axis has length 1.
        real: [batch, position], neither padding nor after the end of its row.
        kind: "forward", "denoising" or "decoding".
        width: the positions that the run planned to compute; `values` holds fewer if it ended early.
        padding: [batch, prompt], the positions of its prompts that are padding.
        n_steps, planned_steps: the steps that ran, and that were planned.
        computed: [step, batch, position], what each step computed; None is all.
    """

    values: Tensor
    layers: tuple[int, ...]
    steps: tuple[int, ...] | None
    real: TokenMask
    kind: str
    width: int
    padding: Bool[Tensor, "batch prompt"]
    n_steps: int
    planned_steps: int
    computed: Bool[Tensor, "step batch position"] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Patch(Edit):
    """Values are replaced by those another run had at the same point, layer and step.

    Under classifier-free guidance only the conditional half is replaced, as a record holds that half.

    Args:
        source: the other run's values; what it does not hold, as it is padding, that run had ended, or its cache
            left the position out, keeps its own value.
    """

    source: Source

    def check(self, target: Target) -> None:
        super().check(target)
        missing = sorted(set(target.layers(self.layers)) - set(self.source.layers))
        if missing:
            raise ValueError(
                f"the record to patch from lacks layers {missing} of {self.at}; expected every layer that is patched; "
                f"capture them, or name layers={list(self.source.layers)}"
            )
        self._check_sizes(target)

    def _check_sizes(self, target: Target) -> None:
        """The axes of the point that do not depend on the run are as long in both models."""
        axes, sizes = POINTS[self.at].axes, self.source.values.shape[2:]
        expected = {"head": target.n_heads, "kv_head": target.n_kv_heads}
        if axes[-1] != "position_b" and (width := target.width(self.at, self.layers)) is not None:
            expected[axes[-1]] = width
        for axis, size in zip(axes, sizes, strict=True):
            if axis in expected and size != expected[axis]:
                raise ValueError(
                    f"the record to patch from has {axis} {size}; expected {expected[axis]}; patch between runs of "
                    f"models of one width"
                )

    def check_run(self, shape: RunShape, steps: frozenset[int], real: TokenMask) -> None:
        self._check_kind_and_size(shape)
        source, prompt = self.source, self.source.padding.shape[-1]
        if not torch.equal(source.padding, ~real[:, :prompt].cpu()):
            raise ValueError(
                f"the record to patch from has {source.padding.sum(-1).tolist()} positions of padding in its rows; "
                f"expected {(~real).sum(-1).tolist()}, as prompts correspond row by row; use prompts of the same "
                f"lengths"
            )
        self._check_steps(shape, steps)

    def _check_kind_and_size(self, shape: RunShape) -> None:
        source = self.source
        if source.kind != shape.kind:
            raise ValueError(
                f"the record to patch from is of a {source.kind} run; expected one of {shape.kind}, as steps and "
                f"positions of other kinds do not correspond; record a run of the same kind"
            )
        axes = POINTS[self.at].axes
        batch, computed = (source.values.shape[2 + axes.index(axis)] for axis in ("batch", "position"))
        prompt = source.padding.shape[-1]
        fits = shape.width in (computed, source.width)
        if not fits or (batch, prompt) != (shape.batch, shape.prompt_width):
            raise ValueError(
                f"the record to patch from has {batch} rows of {computed} computed positions, {prompt} of them prompt; "
                f"expected {shape.batch} of {shape.width} and {shape.prompt_width}, as this run has; use the same "
                f"prompts and the same number of new tokens"
            )

    def _check_steps(self, shape: RunShape, steps: frozenset[int]) -> None:
        source = self.source
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

    @property
    def replays(self) -> bool:
        return self.source.steps is None

    def edit(self, value: Tensor, place: Place) -> Tensor:
        assert place.layer is not None
        source = self.source
        if source.steps is not None and place.step not in source.steps:
            return value
        step = 0 if source.steps is None else source.steps.index(place.step)
        axes, rows = POINTS[self.at].axes, list(place.rows)
        batch = axes.index("batch")
        other = source.values[step, source.layers.index(place.layer)].index_select(batch, torch.tensor(rows))
        other = place.part_of(other, axes, value.shape[-1])
        held = source.real if source.computed is None else source.real & source.computed[place.step]
        real = place.part_of(held[rows], ("batch", "position"), 0)
        sizes = {"batch": len(rows), "position": real.shape[1]}
        real = real.reshape([sizes.get(axis, 1) for axis in axes]).to(value.device)
        known = tuple(slice(size) for size in other.shape)
        edited = value.clone()
        edited[known] = torch.where(real, other.to(value), edited[known])
        return edited

    def words(self) -> str:
        return f"patch {self.where()} from another run"

"""Take values of a hook point from another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor

from dlens.axes import POINTS, TokenMask
from dlens.checks import quoted, refuse
from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.given import as_index
from dlens.ops.base.target import RunShape, Target

__all__ = ["Patch", "PlaceMap", "Source", "as_place_map"]

PlaceMap = Mapping[int, int]
"""Places of this run -> places of the other."""


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
    """Values are replaced by those another run had at the same point, at the same layer, step and position, or others.

    Under classifier-free guidance only the conditional half is replaced, as a record holds that half.

    Args:
        source: the other run's values; what it does not hold, as it is padding, that run had ended, or its cache
            left the position out, keeps its own value.
        from_layers, from_steps, from_positions: for each place of this run that of the other; None is the same.
    """

    source: Source
    from_layers: PlaceMap | None = None
    from_steps: PlaceMap | None = None
    from_positions: PlaceMap | None = None

    def check(self, target: Target) -> None:
        super().check(target)
        missing = sorted({self._there(layer) for layer in target.layers(self.layers)} - set(self.source.layers))
        if missing:
            raise ValueError(
                f"the record to patch from lacks layers {missing} of {self.at}; expected every layer that is patched; "
                f"capture them, or name layers={list(self.source.layers)}"
            )
        self._check_maps()
        self._check_sizes(target)

    def _there(self, layer: int) -> int:
        """The other run's layer."""
        return layer if self.from_layers is None else self.from_layers[layer]

    def _check_maps(self) -> None:
        """The other run has what the maps name."""
        known = self.source.steps or (0,)
        if missing := sorted(set((self.from_steps or {}).values()) - set(known)):
            raise ValueError(
                f"from_steps names steps {missing} of the other run; expected some of {list(known)}, which its record "
                f"holds; capture them, or name others"
            )
        if self.from_positions is None:
            return
        axes = POINTS[self.at].axes
        if "position_b" in axes:
            raise ValueError(
                f"from_positions= at {self.at}, which has an axis of keys; expected a point with one axis of "
                f"positions; patch z or another point, or leave it out"
            )
        longest = int(self.source.real.sum(-1).max())
        if beyond := sorted(there for there in self.from_positions.values() if there >= longest):
            raise IndexError(
                f"from_positions names position {beyond[0]} of the other run; expected 0 to {longest - 1}, counted "
                f"from each row's first real token; give smaller numbers"
            )

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
        alike = self._corresponds(shape) and torch.equal(source.padding, ~real[:, :prompt].cpu())
        if not alike and (self._corresponds(shape) or not torch.equal(source.padding.sum(-1), (~real).sum(-1).cpu())):
            raise ValueError(
                f"the record to patch from has {source.padding.sum(-1).tolist()} positions of padding in its rows; "
                f"expected {(~real).sum(-1).tolist()}, as prompts correspond row by row; use prompts of the same "
                f"lengths"
            )
        self._check_steps(shape, steps)

    def _corresponds(self, shape: RunShape) -> bool:
        """Whether the other run is of the same kind, and its positions are those of this one."""
        return self.source.kind == shape.kind and self.from_positions is None

    def _check_kind_and_size(self, shape: RunShape) -> None:
        source = self.source
        if source.kind != shape.kind and self.from_steps is None:
            raise ValueError(
                f"the record to patch from is of a {source.kind} run; expected one of {shape.kind}, as steps and "
                f"positions of other kinds do not correspond; record a run of the same kind, or say with from_steps= "
                f"which step is which"
            )
        axes = POINTS[self.at].axes
        batch, computed = (source.values.shape[2 + axes.index(axis)] for axis in ("batch", "position"))
        prompt, width = source.padding.shape[-1], shape.width - shape.filler
        if self._corresponds(shape):
            fits = width in (computed, source.width) and prompt == shape.prompt_width
        else:
            fits = self.from_positions is not None or width == computed
        if not fits or batch != shape.batch:
            raise ValueError(
                f"the record to patch from has {batch} rows of {computed} computed positions, {prompt} of them prompt; "
                f"expected {shape.batch} of {width} and {shape.prompt_width}, as this run has; use the same "
                f"prompts and the same number of new tokens"
            )

    def _check_steps(self, shape: RunShape, steps: frozenset[int]) -> None:
        source = self.source
        if source.steps is None or self.from_steps is not None:
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
        there = place.step if self.from_steps is None else self.from_steps[place.step]
        if source.steps is not None and there not in source.steps:
            return value
        step = 0 if source.steps is None else source.steps.index(there)
        whole = source.values[step, source.layers.index(self._there(place.layer))]
        held = source.real if source.computed is None else source.real & source.computed[there]
        if self.from_positions is not None:
            return self._moved(value, whole, held, place)
        axes, rows = POINTS[self.at].axes, list(place.rows)
        batch = axes.index("batch")
        if place.index is not None and place.stop is not None and (more := place.stop - held.shape[1]) > 0:
            whole, held = _longer(whole, axes.index("position"), more), _longer(held, 1, more)
        other = place.part_of(whole.index_select(batch, torch.tensor(rows)), axes, value.shape[-1])
        real = place.part_of(held[rows], ("batch", "position"), 0)
        sizes = {"batch": len(rows), "position": real.shape[1]}
        real = real.reshape([sizes.get(axis, 1) for axis in axes]).to(value.device)
        known = tuple(slice(size) for size in other.shape)
        edited = value.clone()
        edited[known] = torch.where(real, other.to(value), edited[known])
        return edited

    def _moved(self, value: Tensor, whole: Tensor, held: TokenMask, place: Place) -> Tensor:
        """The new value, where each position is another one of the other run."""
        assert self.from_positions is not None
        edited = value.clone()
        columns = torch.arange(place.columns.start, place.columns.stop)
        for number, row in enumerate(place.rows):
            first = int(self.source.padding[row].sum())
            own = columns if place.index is None else place.index[number].cpu()
            for here, there in self.from_positions.items():
                if first + there < whole.shape[1] and bool(held[row, first + there]):
                    edited[number, own == first + here] = whole[row, first + there].to(value)
        return edited

    def words(self) -> str:
        maps = (f"{name} {_map_words(own)}" for name, own in self._maps().items())
        moved = "".join(f", {words}" for words in maps)
        return f"patch {self.where()} from another run{moved}"

    def details(self) -> dict[str, Any]:
        return {f"from_{name}": [list(pair) for pair in own.items()] for name, own in self._maps().items()}

    def _maps(self) -> dict[str, PlaceMap]:
        found = {"layers": self.from_layers, "steps": self.from_steps, "positions": self.from_positions}
        return {name: own for name, own in found.items() if own is not None}


def _longer(value: Tensor, axis: int, more: int) -> Tensor:
    """With nothing at further positions, those that fill up canvas blocks."""
    size = list(value.shape)
    size[axis] = more
    return torch.cat([value, value.new_zeros(size)], axis)


def _map_words(places: PlaceMap) -> str:
    return ", ".join(f"{here} from {there}" for here, there in places.items())


def as_place_map(what: str, places: Any, without: Any) -> dict[int, int] | None:
    """A map of places as a user writes it; None stays None.

    Args:
        what: what it maps: "layers", "steps" or "positions".
        places: the map.
        without: what was given for the argument that names the places of this run alone; None for nothing.

    Raises:
        ValueError: no map of whole numbers, or both were given.

    Examples:
        >>> as_place_map("layers", {8: 4}, None)
        {8: 4}
    """
    if places is None:
        return None
    if not isinstance(places, Mapping) or not places:
        refuse(f"from_{what}", places, f"a mapping of {what} of this run to those of the record", "write {8: 4}")
    if without is not None:
        raise ValueError(
            f"from_{what}={quoted(places)} beside {quoted(without)}; expected a map alone, which names the {what} of "
            f"this run itself; leave {'tokens' if what == 'positions' else what}= out"
        )
    found = {as_index(here, f"from_{what}"): as_index(there, f"from_{what}") for here, there in places.items()}
    if (least := min(*found, *found.values())) < 0:
        raise ValueError(f"from_{what} names {least}; expected numbers from 0; count from the start")
    return found

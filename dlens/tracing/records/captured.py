"""Tensors with the axes of hook points, as a record holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

from dlens.axes import hook_name, parse_point

__all__ = ["Captured", "Held"]


@dataclass
class Captured:
    """One captured point.

    Args:
        values: the tensor, on the CPU.
        dims: its axis names.
        layers, steps: the layers and steps it holds (empty where it has no such axis).
        positions: the columns of the batch it holds.
    """

    values: Tensor
    dims: tuple[str, ...]
    layers: tuple[int, ...]
    steps: tuple[int, ...]
    positions: tuple[int, ...]


@final
@dataclass(frozen=True, repr=False)
class Held(Mapping[str, Tensor]):
    """What was kept of hook points, read by short forms and full names.

    Args:
        kept: name -> tensor with its axes.
        n_layers: depth of the model, as layers may be counted from its end.
        batch: rows.
        verb: what keeps them, for the error.

    Examples:
        >>> import dlens
        >>> metric = dlens.metrics.logit_difference(301, 302)
        >>> record = dlens.trace("trio/ar").gradient("z", of=metric, layers=[3, 5]).forward("Once upon a time")
        >>> record.gradients.dims("z"), record.gradients.coords("z")["layer"]
        (('layer', 'batch', 'position', 'head', 'd_head'), [3, 5])
        >>> record.gradients["blocks.5.attn.hook_z"].shape, "q" in record.gradients
        (torch.Size([1, 4, 3, 64]), False)
    """

    kept: Mapping[str, Captured]
    n_layers: int
    batch: int
    verb: str

    def __getitem__(self, name: str) -> Tensor:
        kept, layer = self._find(name)
        if layer is None:
            return kept.values
        return kept.values.select(kept.dims.index("layer"), kept.layers.index(layer))

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self._find(name))
        except (KeyError, ValueError):
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __repr__(self) -> str:
        return ", ".join(f"{name} {list(kept.values.shape)}" for name, kept in self.kept.items())

    def dims(self, name: str) -> tuple[str, ...]:
        """The axis names of a tensor."""
        kept, layer = self._find(name)
        return kept.dims if layer is None else tuple(dim for dim in kept.dims if dim != "layer")

    def coords(self, name: str) -> dict[str, list[int]]:
        """The layers, steps and positions that a tensor holds, axis by axis."""
        kept, _ = self._find(name)
        known = {
            "step": list(kept.steps),
            "layer": list(kept.layers),
            "batch": list(range(self.batch)),
            "position": list(kept.positions),
        }
        return {dim: known[dim] for dim in self.dims(name) if dim in known}

    def _find(self, name: str) -> tuple[Captured, int | None]:
        if isinstance(name, str) and name in self.kept:
            return self.kept[name], None
        point = parse_point(name)
        if point.layer is not None and -self.n_layers <= point.layer < 0:
            return self._find(hook_name(point.point, point.layer + self.n_layers))
        kept = self.kept.get(point.point)
        if kept is not None and point.layer in kept.layers and "layer" in kept.dims:
            return kept, point.layer
        if kept is not None and point.layer is None:
            return kept, None
        raise KeyError(
            f"{name!r} is not in this record; expected one of {sorted(self.kept) or 'nothing, as none was kept'}; "
            f"add .{self.verb}({name!r}) to the trace"
        )

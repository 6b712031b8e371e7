"""Measures that are means, over positions or over prompts: what is averaged is all that a new one says."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlens.measures.base.arrays import acted, check_channels, labelled
from dlens.measures.base.cells import add_by_cell, mean_of
from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Means", "PositionMeans", "PromptMeans", "Samples"]


@dataclass(frozen=True)
class Samples:
    """Numbers to be averaged, so many a layer.

    Args:
        values: by the name of their variable.
        cell: the (noise, state) cell that each counts in, or its noise bin alone; -1 counts nothing.
        where: which count at all; None all.
    """

    values: Mapping[str, Float[Tensor, "layer n"]]
    cell: Int[Tensor, " n"]
    where: Bool[Tensor, "layer n"] | None = None


@dataclass(frozen=True, kw_only=True)
class Means(Measure):
    """Means by step, noise (where it is defined), state and layer, each beside the number of what it averages.

    A subclass gives `samples`, and says in words what its dataset holds.

    Attributes:
        formulas: each variable and what it is the mean of.
        counted: the number that a variable is averaged by, where that is not "n".
        without_state: the numbers that are kept by step, noise and layer alone.
        pooling, positions: what is averaged, and which positions count.
    """

    formulas: ClassVar[Mapping[str, str]]
    counted: ClassVar[Mapping[str, str]] = {}
    without_state: ClassVar[tuple[str, ...]] = ()
    pooling: ClassVar[str]
    positions: ClassVar[str] = "all but padding and what follows the end of a row"

    @abstractmethod
    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        """What a visit adds, by the name of the number that counts it."""

    @property
    def counts(self) -> Mapping[str, str]:
        """Each variable and the number that it is averaged by."""
        return {name: self.counted.get(name, "n") for name in self.formulas}

    @property
    def estimator(self) -> str:
        """The formulas in words, once where all variables have the same."""
        if len(each := set(self.formulas.values())) == 1:
            return each.pop()
        return "; ".join(f"{name} = {formula}" for name, formula in self.formulas.items())

    @property
    def left_out(self) -> tuple[int, ...]:
        """The channels that do not count."""
        return ()

    def finish(self, name: str, total: Tensor, n: Tensor, span: Span) -> Tensor:
        """A variable from its sum and number: the mean, NaN where nothing was counted, unless overridden."""
        return mean_of(total, n)

    def start(self, span: Span) -> Sums:
        check_channels(self.left_out, span.d_model)
        cells = {count: span.n_noise if count in self.without_state else span.n_cells for count in self.counts.values()}
        sizes = {name: cells[count] for name, count in self.counts.items()} | cells
        return {
            key: torch.zeros(span.n_steps, size, span.n_layers, dtype=torch.float64, device=span.device)
            for key, size in sizes.items()
        }

    def update(self, sums: Sums, visit: Visit) -> None:
        for count, samples in self.samples(visit).items():
            some = torch.ones_like(next(iter(samples.values.values())))
            for key, values in {**samples.values, count: some}.items():
                counted = values if samples.where is None else torch.where(samples.where, values, 0)
                add_by_cell(sums[key][visit.step, :, visit.at], counted, samples.cell)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        split = {key: self._split(sums[key].cpu(), count, span) for key, count in self._keys().items()}
        dims = {count: self._dims(count, span) for count in self.counts.values()}
        means = {
            name: (dims[count], self.finish(name, split[name], split[count], span))
            for name, count in self.counts.items()
        }
        numbers = {count: (dims[count], split[count].long()) for count in dims}
        return labelled(means | numbers, span, **self.attributes(sums))

    def attributes(self, sums: Sums) -> dict[str, Any]:
        """What the dataset says of itself."""
        return {
            "estimator": self.estimator,
            "pooling": self.pooling,
            "positions": self.positions,
            "channels_left_out": list(self.left_out),
            **{f"count_of_{name}": count for name, count in self.counts.items() if count != "n"},
            "n": int(sums["n"].sum((0, 1)).max()),
        }

    def _named(self, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a subclass found, where it has the names that it was announced by."""
        if found.keys() != self.formulas.keys():
            raise ValueError(
                f"{self.key} gives values of {', '.join(found)}; expected {', '.join(self.formulas)}, as its "
                f"`formulas` say; use the same names"
            )
        return found

    def _keys(self) -> dict[str, str]:
        """Every sum and the number that belongs to it: its own, where it is one."""
        return {**self.counts, **{count: count for count in self.counts.values()}}

    def _dims(self, count: str, span: Span) -> tuple[str, ...]:
        return ("step", *(span.noise_dims if count in self.without_state else span.cell_dims), "layer")

    def _split(self, values: Float[Tensor, "step cell layer"], count: str, span: Span) -> Tensor:
        if count not in self.without_state:
            return span.split_cells(values, axis=1)
        return values if span.has_noise else values[:, 0]


@dataclass(frozen=True, kw_only=True)
class PositionMeans(Means):
    """Means over positions of numbers that each position has at each layer; a position counts once a step.

    A subclass gives its formula and the points that it reads. Where `drop` is one of its arguments it takes
    `DropsChannels` as its first base, and leaves the channels out with `left_out`.

    Args:
        name: key in the record, its class in snake case by default.

    Attributes:
        where_acted: the numbers that leave out the rows at which a block did not act, so that what they
            count is NaN at a skipped layer.

    Examples:
        >>> import dlens
        >>> class Largest(PositionMeans):
        ...     points = ("resid_post",)
        ...     formulas = {"largest": "largest magnitude among the channels of resid_post"}
        ...     def values(self, visit):
        ...         return {"largest": visit.values["resid_post"].abs().amax(-1)}
        >>> data = dlens.trace("trio/ar").measure(Largest()).forward("Once upon a time").measures["largest"]
        >>> data["largest"].dims, data["n"].sel(state="prompt", layer=3).values.tolist()
        (('step', 'state', 'layer'), [4])
    """

    where_acted: ClassVar[tuple[str, ...]] = ()
    pooling: ClassVar[str] = "mean over positions; a position counts once a step"

    @abstractmethod
    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch position"]]:
        """The number of every position, by the names in `formulas`; anything where nothing is measured."""

    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        found, cell, where = self._named(self.values(visit)), visit.cells.cell.flatten(), acted(visit)
        return {
            count: Samples(
                {name: found[name].flatten(1) for name, own in self.counts.items() if own == count},
                cell,
                where if count in self.where_acted else None,
            )
            for count in dict.fromkeys(self.counts.values())
        }


@dataclass(frozen=True, kw_only=True)
class PromptMeans(Means):
    """Means over prompts of numbers that the positions of a prompt have together, at each layer and step.

    Each variable is there twice: from the positions in one state alone, and under its name with "_all" from
    all measured positions, over step, noise and layer. "n" and "n_all" are the prompts with enough positions.

    Args:
        name: key in the record, its class in snake case by default.

    Attributes:
        min_rows: so many positions a prompt needs to count.

    Examples:
        >>> import dlens
        >>> class Positions(PromptMeans):
        ...     formulas = {"positions": "positions of a prompt"}
        ...     def values(self, visit):
        ...         sizes = visit.cells.sizes.double()
        ...         return {"positions": sizes.expand(visit.values["resid_post"].shape[0], *sizes.shape)}
        >>> record = dlens.trace("trio/ar").measure(Positions()).forward("Once upon a time")
        >>> record.measures["positions"]["positions_all"].sel(layer=3).values.tolist()
        [4.0]
    """

    without_state: ClassVar[tuple[str, ...]] = ("n_all",)
    min_rows: ClassVar[int] = 2
    pooling: ClassVar[str] = "mean over prompts; a prompt counts once a step"

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    @property
    def counts(self) -> Mapping[str, str]:
        return dict.fromkeys(self.formulas, "n") | {f"{name}_all": "n_all" for name in self.formulas}

    @abstractmethod
    def values(self, visit: Visit) -> Mapping[str, Float[Tensor, "layer batch group"]]:
        """The number of every prompt for each of `visit.cells.groups`, by the names in `formulas`."""

    def samples(self, visit: Visit) -> Mapping[str, Samples]:
        cells = visit.cells
        # A step that computes one position, as with a cache, is not worth the matrices.
        if cells.state.shape[-1] < self.min_rows:
            return {}
        found, enough = self._named(self.values(visit)), cells.sizes >= self.min_rows
        by_state = torch.where(enough[:, :-1], cells.cell_of_states, -1).flatten()
        overall = torch.where(enough[:, -1], cells.noise, -1)
        return {
            "n": Samples({name: value[..., :-1].flatten(1) for name, value in found.items()}, by_state),
            "n_all": Samples({f"{name}_all": value[..., -1] for name, value in found.items()}, overall),
        }

    def attributes(self, sums: Sums) -> dict[str, Any]:
        return super().attributes(sums) | {"n": int(sums["n_all"].sum((0, 1)).max())}

"""What a measure is: sums that grow while the model runs, and a labelled array at the end."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlens.axes import STATES
from dlens.measures.base.cells import Cells
from dlens.measures.base.readout import Readout

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["N_NOISE_BINS", "Measure", "Span", "Sums", "Visit"]

N_NOISE_BINS = 10

Sums = dict[str, Tensor]
"""The running sums of one measure: plain tensors, so that they can be sent and merged."""


@dataclass(frozen=True)
class Span:
    """What a run covers, known before it starts.

    Args:
        n_steps: planned steps; 1 for a forward.
        n_layers: depth of the model.
        d_model: width of the residual stream.
        has_noise: whether the noise level is defined (diffusion models).
        device: where sums are kept while the model runs.

    Examples:
        >>> span = Span(n_steps=4, n_layers=16, d_model=192, has_noise=True, device=torch.device("cpu"))
        >>> span.cell_dims, span.split_cells(torch.zeros(4, span.n_cells, 16), axis=1).shape
        (('noise', 'state'), torch.Size([4, 10, 3, 16]))
        >>> span.coords()["state"]
        ['prompt', 'masked', 'decoded']
    """

    n_steps: int
    n_layers: int
    d_model: int
    has_noise: bool
    device: torch.device

    @property
    def n_noise(self) -> int:
        """Number of noise bins; 1 where the noise level is undefined."""
        return N_NOISE_BINS if self.has_noise else 1

    @property
    def n_cells(self) -> int:
        """Number of (noise, state) cells."""
        return self.n_noise * len(STATES)

    @property
    def noise_dims(self) -> tuple[str, ...]:
        """The noise dimension, where there is one."""
        return ("noise",) if self.has_noise else ()

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """The dimensions that `split_cells` makes of the cell axis."""
        return (*self.noise_dims, "state")

    def split_cells(self, values: Tensor, axis: int) -> Tensor:
        """Unfold a cell axis into (noise, state), or into (state) for AR."""
        axis = axis % values.ndim
        shape = (N_NOISE_BINS, len(STATES)) if self.has_noise else (len(STATES),)
        return values.reshape(*values.shape[:axis], *shape, *values.shape[axis + 1 :])

    def coords(self) -> dict[str, Any]:
        """Coordinates of `step`, `layer`, `state` and, where defined, `noise` (bin centres)."""
        coords: dict[str, Any] = {
            "step": list(range(self.n_steps)),
            "layer": list(range(self.n_layers)),
            "state": list(STATES),
        }
        if self.has_noise:
            coords["noise"] = [(i + 0.5) / N_NOISE_BINS for i in range(N_NOISE_BINS)]
        return coords


@dataclass(frozen=True)
class Visit:
    """Consecutive layers of one step, handed to a measure while the model runs.

    Mostly these are all layers of the model. A step comes in several visits, in the order of the
    layers, where its values would take too much memory, or where an operation writes between two blocks.

    Args:
        step, layers: where.
        values: hook point -> tensor [layer, batch, position, ...], conditional half only. The
            memory is used again: reduce them now, keep nothing, write nothing.
        cells: which positions count.
        skipped: where the block did not act at this step (its output is its input); None where
            every block acted in every row.
        last: whether these are the last layers of the step.
        shared: what several measures need of these layers, computed by the first that asks.
        carried: what measures keep until the step's next visit; empty when a step starts.
        kept: what measures keep until the run ends, such as one step to compare the next with; empty when
            a run starts. Where rows decode in groups, one group follows the other, each from step 0.
        rows, columns: which rows and columns of the whole batch these are.
        readout: how the model reads tokens off its stream, for measures that ask for it.
        keys: the state of every column that is attended to, where a cached step computes some alone: `cells` then
            leaves out the others, whose values are 0. None where these are the columns of `cells`.

    Examples:
        >>> cells = Cells(state=torch.zeros(1, 3).long(), noise=torch.zeros(1).long())
        >>> visit = Visit(step=0, layers=range(2, 4), values={"resid_post": torch.zeros(2, 1, 3, 8)}, cells=cells)
        >>> visit.at, torch.zeros(16)[visit.at].shape
        (slice(2, 4, None), torch.Size([2]))
    """

    step: int
    layers: range
    values: Mapping[str, Tensor]
    cells: Cells
    skipped: Bool[Tensor, "layer batch"] | None = None
    last: bool = True
    shared: dict[Any, Any] = field(default_factory=dict)
    carried: dict[Any, Any] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)
    rows: Sequence[int] = ()
    columns: range = range(0)
    readout: Readout | None = None
    keys: Int[Tensor, "batch position"] | None = None

    @property
    def at(self) -> slice:
        """The layers as an index."""
        return slice(self.layers.start, self.layers.stop)


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """A quantity read while the model runs.

    `start` makes empty sums, `update` adds some layers of one step, `merge` joins the sums of two
    runs, `result` turns sums into an `xarray.Dataset`. The measure itself is immutable settings.

    Args:
        name: key in `record.measures`; None is the class name in snake case.

    Attributes:
        replays: whether a step that it reads can be recorded once and played again on a GPU: `update` is arithmetic of
            the device alone, adds to its sums in place, and keeps nothing for later steps.

    Examples:
        A measure of one's own, how many positions count at each step:

        >>> import dlens, xarray
        >>> class Count(Measure):
        ...     points = ("resid_post",)
        ...     def start(self, span):
        ...         return {"n": torch.zeros(span.n_steps)}
        ...     def update(self, sums, visit):
        ...         if visit.last:
        ...             sums["n"][visit.step] += (visit.cells.state >= 0).sum()
        ...     def result(self, sums, span):
        ...         return xarray.Dataset({"n": ("step", sums["n"].numpy())})
        >>> record = dlens.trace("trio/diffusion").measure(Count()).generate("Once upon a time", 4)
        >>> Count().key, record.measures["count"]["n"].values.tolist()
        ('count', [8.0, 8.0, 8.0, 8.0])
        >>> Count().merge({"n": torch.tensor([1.0])}, {"n": torch.tensor([2.0])})
        {'n': tensor([3.])}
    """

    name: str | None = None
    replays: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """The name in `record.measures`: `name=`, or the class name in snake case."""
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        return snake if self.name is None else self.name

    @property
    @abstractmethod
    def points(self) -> tuple[str, ...]:
        """The hook points it reads at every layer."""

    @property
    def reads_tokens(self) -> bool:
        """Whether it needs `visit.readout`."""
        return False

    @abstractmethod
    def start(self, span: Span) -> Sums:
        """Empty sums for a run."""

    @abstractmethod
    def update(self, sums: Sums, visit: Visit) -> None:
        """Add some layers of one step, in place."""

    def merge(self, sums: Sums, other: Sums) -> Sums:
        """Join the sums of two runs of the same span; every sum is additive unless overridden."""
        return {key: value + other[key] for key, value in sums.items()}

    @abstractmethod
    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        """The labelled result, with the estimator, pooling, positions and n in its attributes."""

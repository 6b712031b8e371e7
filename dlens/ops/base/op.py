"""What an operation is: plain picklable data that says what to do to a forward, where and when.

An operation describes itself: the points that it reads or writes, and what it changes of what is computed.
Planning, the step's program and the engine ask these descriptions; they know no operation by name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from dlens.axes import Part, TokenMask
from dlens.checks import check_fields, refuse
from dlens.ops.base.scope import Scope
from dlens.ops.base.target import RunShape, Target
from dlens.ops.base.tokens import TokenSpec

__all__ = ["Calibration", "Kept", "Op", "Structure", "Touch", "snake_case"]


@dataclass(frozen=True)
class Touch:
    """A hook point that an operation reads or writes.

    Args:
        point: its short form.
        layers: the places; empty outside of blocks.
        use: "write" gives a new value, "keep" copies the value into the record, "measure" feeds a measure, "gradient"
            keeps the gradient of a metric.
    """

    point: str
    layers: tuple[int, ...]
    use: Literal["write", "keep", "measure", "gradient"]


@dataclass(frozen=True)
class Structure:
    """What an operation changes of what is computed; empty where it only reads and writes values.

    Args:
        skips: place -> the part of its block that does not run.
        runs: place -> how often its block runs.
        swaps: pairs of places whose blocks trade places, one after the other.

    Examples:
        >>> bool(Structure()), bool(Structure(skips={3: "block"}, runs={5: 2}))
        (False, True)
    """

    skips: Mapping[int, Part] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    swaps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "write Structure(skips={3: 'block'}), Structure(runs={3: 2}) or Structure(swaps=((2, 7),))")

    def __bool__(self) -> bool:
        return bool(self.skips or self.runs or self.swaps)


@dataclass(frozen=True)
class Kept:
    """A name that an operation takes in the record.

    Args:
        where: "record" or "record.measures".
        key: the name.
        fix: what to do where two operations take it.
    """

    where: str
    key: str
    fix: str


class Calibration(ABC):
    """What is measured on the shipped text when a run starts, for operations that leave it open."""

    @abstractmethod
    def outlier(self) -> tuple[int, float]:
        """The channel with the largest energy share, and that share."""

    @abstractmethod
    def means(self, point: str) -> Float[Tensor, "layer ..."]:
        """The mean of every channel at a point, by head where it has heads."""


@dataclass(frozen=True, kw_only=True)
class Op(ABC):
    """An operation on a forward, as data; extend it, or `dlens.Edit` for one that writes values at a hook point.

    `Trace.apply` takes any; all it does is in what it says of itself: `touches` and `structure`.

    Args:
        scope: the steps and noise levels at which it acts.

    Examples:
        >>> import dlens
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class EveryOther(dlens.Op):
        ...     def words(self):
        ...         return "skip every other layer"
        ...     def structure(self, target):
        ...         return dlens.Structure(skips={layer: "block" for layer in range(1, target.n_layers, 2)})
        >>> trace, op = dlens.trace("trio/ar"), EveryOther()
        >>> trace.apply(op).forward("Once upon a time").saved_flops > 0
        True

        What an operation says of itself, where it says nothing else:

        >>> op.check(trace.target)
        >>> op.touches(trace.target), op.changes(trace.target), op.keeps(), op.details(), op.to_json()
        ((), True, None, {}, {'op': 'every_other'})
        >>> op.selection(), op.sources()
        ('all', 'all')
        >>> op.resolved(trace.target) is op
        True
    """

    scope: Scope = Scope()

    def check(self, target: Target) -> None:
        """Refuse what this model cannot do, before anything is computed.

        Raises:
            ValueError, IndexError: with what came, what was expected and the usual fix.
        """
        if not isinstance(self.scope, Scope):
            refuse("scope", self.scope, "when it acts", "leave scope= out for always, and pass steps= to the verb")
        if self.scope.noise is not None and not target.has_noise:
            raise ValueError(
                f"noise={self.scope.noise!r} on {target.name}; expected a diffusion model, as the noise "
                f"level of an autoregressive model is undefined; use steps= instead"
            )

    def check_run(self, shape: RunShape, steps: frozenset[int], real: TokenMask) -> None:
        """Refuse what does not fit a run, before anything is computed.

        Args:
            shape: its size.
            steps: those at which the operation acts.
            real: [batch, position] over the whole run, what is not padding.

        Examples:
            A patch compares the run that it comes from with the one where it goes:

            >>> import dlens
            >>> trace = dlens.trace("trio/ar").capture("resid_post")
            >>> try:
            ...     trace.patch(trace.forward("Once upon")).forward("Once upon a time")
            ... except ValueError as error:
            ...     print(str(error)[:66])
            the record to patch from has 1 rows of 2 computed positions, 2 of
        """
        return

    def touches(self, target: Target) -> tuple[Touch, ...]:
        """The hook points that it reads or writes, and at which places."""
        return ()

    def structure(self, target: Target) -> Structure:
        """What it changes of what is computed."""
        return Structure()

    def selection(self) -> TokenSpec:
        """The positions that it acts on, as the user wrote them."""
        return "all"

    def sources(self) -> TokenSpec:
        """The keys that it acts on, where its values have an axis of them."""
        return "all"

    def keeps(self) -> Kept | None:
        """The name that it takes in the record, if any."""
        return None

    @property
    def replays(self) -> bool:
        """Whether a step where it acts can be recorded once and played again on a GPU.

        So it can where all that it does is arithmetic of the device: nothing depends on the number of the step, on
        numbers that the processor reads, or on what an earlier step kept.

        Examples:
            >>> import dlens
            >>> trace = dlens.trace("trio/diffusion").skip([3]).capture("resid_post")
            >>> [op.replays for op in trace.ops]
            [True, False]
        """
        return False

    def filled(self, calibration: Calibration) -> Op:
        """Itself with everything that it left open until its run starts, for the record.

        Examples:
            >>> import dlens
            >>> op = dlens.trace("trio/diffusion").ablate_outlier()
            >>> op.ops[0].channel, op.forward("Once upon a time").plan[0]["channel"]
            (None, 111)
        """
        return self

    def resolved(self, target: Target) -> Op:
        """The operation that runs in its place once it is filled."""
        return self

    @abstractmethod
    def words(self) -> str:
        """The operation in words, for `print(trace)` and for error messages."""

    def details(self) -> dict[str, Any]:
        """What is written of it into `record.plan` beside its name, its words and its scope."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """What is written of it into `record.plan`."""
        return {"op": snake_case(type(self).__name__)} | self.details() | self.scope.to_json()

    def changes(self, target: Target) -> bool:
        """Whether anything is computed otherwise than without it."""
        return bool(self.structure(target)) or any(touch.use == "write" for touch in self.touches(target))


def snake_case(name: str) -> str:
    """The name of a class as operations are called.

    Examples:
        >>> snake_case("AblateOutlier")
        'ablate_outlier'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

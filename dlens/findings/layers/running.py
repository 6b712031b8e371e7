"""A measure that goes on from one run to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from dlens.measures.base.measure import Measure, Span, Sums, Visit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Running"]


@final
@dataclass(frozen=True, kw_only=True)
class Running(Measure):
    """Keeps the sums of a measure, so that several runs of one span count as one.

    The result after the last run is that of all of them together, in the memory of one.

    Args:
        measure: what is measured.
        sums: its sums so far.
    """

    measure: Measure
    sums: Sums = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.measure.key

    @property
    def points(self) -> tuple[str, ...]:
        return self.measure.points

    @property
    def reads_tokens(self) -> bool:
        return self.measure.reads_tokens

    def start(self, span: Span) -> Sums:
        if not self.sums:
            self.sums.update(self.measure.start(span))
        return self.sums

    def update(self, sums: Sums, visit: Visit) -> None:
        self.measure.update(sums, visit)

    def merge(self, sums: Sums, other: Sums) -> Sums:
        return self.measure.merge(sums, other)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        return self.measure.result(sums, span)

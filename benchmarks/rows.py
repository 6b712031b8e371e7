"""The rows of a benchmark: a ratio, its budget, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.timing import Ratio, Timings

__all__ = ["Row", "decoding_rows", "forward_rows", "table", "write_json"]


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        what: what was done, against what.
        model: on which model.
        value: the ratio, or a number in `unit`.
        budget: the most it may be; None where it is there for comparison.
        low, high: quartiles of the ratio, where it has any.
        unit: "" for a ratio.
    """

    what: str
    model: str
    value: float
    budget: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, what: str, model: str, ratio: Ratio, budget: float | None = None) -> Row:
        """A row of a ratio of times."""
        return cls(what, model, ratio.value, budget, ratio.low, ratio.high)

    @property
    def verdict(self) -> str:
        """Whether it keeps its budget; empty where it has none."""
        if self.budget is None:
            return ""
        return "holds" if self.value <= self.budget else "over"

    def cells(self) -> list[str]:
        """The columns of the table."""
        spread = "" if self.low is None or self.high is None else f"{self.low:.3f} to {self.high:.3f}"
        budget = "" if self.budget is None else f"{self.budget:.3f}"
        return [self.what, self.model, f"{self.value:.3f} {self.unit}".strip(), spread, budget, self.verdict]


def forward_rows(
    timings: Timings, model: str, n_layers: int, n_skipped: int, empty: float | None, capture: float | None
) -> list[Row]:
    """The rows of `cases.forwards`; a skip may cost 0.02 more than the share of the time that it leaves out."""
    outside = timings.ratio("no blocks", "plain").value
    ideal = 1 - n_skipped / n_layers * (1 - outside)
    return [
        Row.of("trace without operations / plain", model, timings.ratio("empty", "plain"), empty),
        Row.of("trace with a hook that does nothing / plain", model, timings.ratio("trivial", "plain")),
        Row.of("capture resid_post of all layers / plain", model, timings.ratio("capture", "plain"), capture),
        Row.of("the same with PyTorch hooks / plain", model, timings.ratio("hooks", "plain")),
        Row.of("the same with nnsight alone / plain", model, timings.ratio("nnsight", "plain")),
        Row.of(f"skip {n_skipped} of {n_layers} / plain", model, timings.ratio("skip", "plain"), ideal + 0.02),
    ]


def decoding_rows(
    timings: Timings, model: str, steps: int, n_skipped: int, cosine: float | None, both: float
) -> list[Row]:
    """The rows of `cases.decoding`."""
    what = f"denoising, {steps} steps"
    return [
        Row.of(f"{what}, a hook that does nothing / untraced", model, timings.ratio("trivial", "untraced")),
        Row.of(f"{what}, skip {n_skipped} blocks / untraced", model, timings.ratio("skip", "untraced")),
        Row.of(f"{what}, Cosine / untraced", model, timings.ratio("cosine", "untraced"), cosine),
        Row.of(f"{what}, Cosine and Outliers / untraced", model, timings.ratio("both", "untraced"), both),
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table."""
    head = ["what", "model", "measured", "quartiles", "budget", ""]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_json(path: Path, rows: Sequence[Row], about: dict[str, str]) -> None:
    """Write the rows, and what they were measured with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")

"""The results of a benchmark: rows of ratios and their budgets, printed as a table and kept as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.timing import Ratio

__all__ = ["Result", "Row", "publish", "read_result"]

_PACKAGES = ("dlens", "torch", "transformers", "nnsight", "transformer-lens", "llmcompressor", "sae-lens")


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


@dataclass(frozen=True)
class Result:
    """What one run of a benchmark found.

    Args:
        command: that measures it again.
        date: of the run, as in 2026-11-22.
        machine: in general words.
        versions: of the libraries that matter.
        rows: medians, with quartiles.
    """

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    rows: list[Row]


def publish(rows: Iterable[Row], json: Path | None, module: str, device: str = "cpu", **options: object) -> None:
    """Print the rows as a markdown table, each as soon as it is found; write them with what measures them again.

    Args:
        rows: what is found.
        json: the file to write; None writes none.
        module: that ran, such as "benchmarks.tracing".
        device: where it ran.
        options: of its command line, as they held.
    """
    head, found = ["what", "model", "measured", "quartiles", "budget", ""], []
    _print(head)
    _print(["---"] * len(head))
    for row in rows:
        _print(row.cells())
        found.append(row)
    if json is not None:
        write_result(json, Result(_command(module, options), f"{date.today()}", _machine(device), _versions(), found))


def _print(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def write_result(path: Path, result: Result) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def read_result(path: Path) -> Result:
    """The result that `write_result` wrote."""
    entry = json.loads(path.read_text(encoding="utf-8"))
    return Result(**entry | {"rows": [Row(**row) for row in entry["rows"]]})


def _command(module: str, options: dict[str, object]) -> str:
    """A switch that is off is left out, and so is what is empty."""
    words = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')} {value}"
        for name, value in options.items()
        if value is not False and value != ""
    ]
    return " ".join([f"python -m {module}", *words])


def _machine(device: str) -> str:
    return f"{os.cpu_count()} cores, CPU" if device == "cpu" else f"one {torch.cuda.get_device_name(device)}"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

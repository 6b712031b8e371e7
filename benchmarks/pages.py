"""The tables of docs/performance.md, made from benchmarks/results: `python -m benchmarks.pages` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.caches import NAMES
from benchmarks.compression import RANDOM
from benchmarks.rows import Result, Row, read_result
from benchmarks.saelens import READ, WRITTEN
from benchmarks.streams import LARGE, MANY

__all__ = ["PAGE", "RESULTS", "made"]

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results"
_SHAPE = "LLaDA-8B's shape"
_TABLE = re.compile(r"(?<=<!-- table: )([\w-]+) -->\n.*?(?=<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column: what was measured on a model, or the budget there.

    Args:
        head: what stands above it.
        models: of the rows that it shows; of several rows the last counts.
        budget: whether it shows the budget in place of the number.
    """

    head: str
    models: tuple[str, ...]
    budget: bool = False

    def cell(self, what: str, rows: Sequence[Row]) -> str:
        """The cell in the line of `what`; empty where nothing was measured."""
        found = [row for model in self.models for row in rows if (row.what, row.model) == (what, model)]
        if not self.budget:
            return _measured(found[-1]) if found else ""
        return next((_number(row.budget, 2, row.unit) for row in found if row.budget is not None), "")


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Args:
        files: of results, by name; a line takes the place of its first row.
        columns: after the first, which says what was done.
    """

    files: tuple[str, ...]
    columns: tuple[Column, ...]


def _one(model: str) -> tuple[Column, ...]:
    return Column("measured", (model,)), Column("budget", (model,), budget=True)


_BATCHES = tuple(f"{_SHAPE}, batch {batch}, {by}" for batch in (1, 4) for by in ("clock", "GPU"))
TABLES = {
    "cpu": Table(
        ("tracing-cpu", "measures-cpu"),
        tuple(
            Column(head, (model,), budget)
            for name, model in (("113 M", "113 M"), ("trio", "8 M trio"))
            for head, budget in ((name, False), ("budget", True))
        ),
    ),
    "import": Table(("tracing-cpu",), _one("dlens")),
    "caches": Table(
        ("caches-cpu",),
        (
            *(Column(f"{width} positions", (name,)) for width, name in NAMES.items()),
            Column("budget", tuple(NAMES.values()), True),
        ),
    ),
    "gradients": Table(
        ("gradients-cpu",),
        tuple(
            Column(head, (model,), budget)
            for name, model in (("113 M", "113 M"), ("trio", "8 M trio"))
            for head, budget in ((name, False), ("budget", True))
        ),
    ),
    "compression": Table(
        ("compression-cpu",),
        (
            *(Column(model, (model,)) for model in ("trio/ar", "trio/diffusion")),
            Column(RANDOM, (RANDOM,)),
            Column("budget", ("trio/ar",), budget=True),
        ),
    ),
    "saelens": Table(
        ("saelens-cpu",), (*(Column(model, (model,)) for model in (READ, WRITTEN)), Column("budget", (WRITTEN,), True))
    ),
    "streams": Table(
        ("streams-cpu", "streams-memory"),
        (*(Column(name, (name,)) for name in ("8 M trio", "113 M")), Column("budget", ("8 M trio", "113 M"), True)),
    ),
    "streams-gpu": Table(
        ("streams-h200",),
        (
            *(Column(head, (head,)) for head in ("8 M trio", "113 M", MANY, LARGE)),
            Column("budget", ("8 M trio", "113 M", MANY, LARGE), True),
        ),
    ),
    "transformerlens": Table(("transformerlens-cpu",), (Column("113 M", ("113 M",)),)),
    "denoising-gpu": Table(
        ("gpu-h100", "measures-h100"),
        (
            *(Column(model.removeprefix(f"{_SHAPE}, "), (model,)) for model in _BATCHES),
            Column("budget", _BATCHES, True),
        ),
    ),
    "replay-gpu": Table(
        ("replay-h200",),
        (
            *(Column(head, (model,)) for head, model in ((_SHAPE, _SHAPE), ("trio/diffusion", "trio"))),
            Column("budget", (_SHAPE, "trio"), True),
        ),
    ),
    "replay-check": Table(("replay-check-h200",), (Column("trio/diffusion", ("trio",)), Column(_SHAPE, (_SHAPE,)))),
    "sweeps": Table(("sweeps-cpu",), _one("trio/diffusion")),
    "forward-gpu": Table(("gpu-h100",), _one(f"{_SHAPE}, one forward")),
    "costs-gpu": Table(("measures-h100", "gpu-h100"), _one(_SHAPE)),
    "scan-gpu": Table(("scan-h200",), (Column("113 M", ("113 M",)), Column("trio", ("8 M trio",)))),
}


def made(page: str) -> str:
    """The page with every table made anew."""
    return _TABLE.sub(lambda match: f"{match[1]} -->\n\n{_table(TABLES[match[1]])}\n\n", page)


def _table(table: Table) -> str:
    paths = [RESULTS / f"{name}.json" for name in table.files]
    results = [read_result(path) for path in paths if path.exists()]
    if not results:
        return "Not measured yet."
    rows = [row for result in results for row in result.rows]
    lines = [["what", *(column.head for column in table.columns)], ["---"] * (1 + len(table.columns))]
    for what in dict.fromkeys(row.what for row in rows):
        cells = [column.cell(what, rows) for column in table.columns]
        lines += [[what, *cells]] if any(cells) else []
    drawn = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([drawn, *dict.fromkeys(map(_source, results))])


def _source(result: Result) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in result.versions.items())
    return f"`{result.command}`: {', '.join(filter(None, [result.machine, versions, result.date]))}."


def _measured(row: Row) -> str:
    """A number, bold where it is over its budget, with quartiles."""
    over = row.budget is not None and row.value > row.budget
    # A third digit where two would round it into its budget.
    hidden = over and row.budget is not None and round(row.value, 2) <= row.budget
    digits = 3 if hidden else 1 if row.value >= 3 and not row.unit else 2
    value = _number(row.value, digits, row.unit)
    spread = "" if row.low is None or row.high is None else f" ({row.low:.{digits}f} to {row.high:.{digits}f})"
    return (f"**{value}**" if over else value) + spread


def _number(value: float, digits: int, unit: str) -> str:
    return f"{value:.{digits}f} {unit}".rstrip()


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""docs/performance.md is what is made from benchmarks/results."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.pages import PAGE, RESULTS, TABLES, Column, made
from benchmarks.rows import Row, read_result

FILES = sorted(RESULTS.glob("*.json"))


def test_the_page_is_made_from_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == made(page), "run `python -m benchmarks.pages`"
    assert all(f"<!-- table: {name} -->" in page for name in TABLES)


def test_every_result_is_on_the_page() -> None:
    assert {path.stem for path in FILES} <= {name for table in TABLES.values() for name in table.files}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_result_says_where_it_is_from(path: Path) -> None:
    result = read_result(path)
    module = result.command.split()[2]
    assert result.command.startswith("python -m benchmarks.") and find_spec(module) is not None
    assert result.date.count("-") == 2 and result.machine and result.rows
    shown = {model for table in TABLES.values() for column in table.columns for model in column.models}
    assert {row.model for row in result.rows} <= shown


def test_a_cell_is_bold_where_it_is_over_its_budget() -> None:
    row = Row("work / plain", "trio", 1.0451, 1.1, 1.0, 1.094)
    column, budget = Column("trio", ("trio",)), Column("budget", ("trio",), budget=True)
    assert column.cell(row.what, [row]) == "1.05 (1.00 to 1.09)" and budget.cell(row.what, [row]) == "1.10"
    assert column.cell(row.what, [replace(row, value=1.2)]) == "**1.20** (1.00 to 1.09)"
    # Two digits would round it into its budget.
    assert column.cell(row.what, [replace(row, value=1.1004)]) == "**1.100** (1.000 to 1.094)"
    assert column.cell(row.what, [Row(row.what, "trio", 6.14)]) == "6.1"
    assert column.cell(row.what, [Row(row.what, "trio", 17.48, unit="%")]) == "17.48 %"
    assert column.cell("other work", [row]) == "" == Column("large", ("large",)).cell(row.what, [row])

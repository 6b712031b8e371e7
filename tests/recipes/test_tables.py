"""What docs/trio.md shows is what the shipped files say."""

import json
from pathlib import Path

import pytest

from dlens.findings.scores.intervals import share_interval
from dlens.models.source import TRIO_FOLDER
from recipes.trio.cards import _accuracies, _depth, _operations
from recipes.trio.objective import RUNS
from recipes.trio.tables import kept_table, seeds_table

EFFECTS = json.loads((TRIO_FOLDER / "effects.json").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[2].joinpath("docs", "trio.md").read_text(encoding="utf-8")


def test_the_page_has_the_tables_of_the_shipped_effects() -> None:
    assert seeds_table(EFFECTS) in PAGE and kept_table(EFFECTS) in PAGE


def test_intervals_of_accuracies_are_those_of_today() -> None:
    tasks = [by for run in EFFECTS.values() for by in run["accuracy"].values()]
    cells = {tuple(cell[key] for key in ("value", "n", "low", "high")) for by in tasks for cell in by.values()}
    for value, n, *ends in cells:
        right = round(value * n)
        low, high = share_interval([True] * right + [False] * (n - right))
        assert [round(low, 4), round(high, 4)] == ends


@pytest.mark.parametrize("name", RUNS)
def test_the_cards_have_the_tables_of_the_shipped_effects(name: str) -> None:
    text, own = (TRIO_FOLDER / name / "README.md").read_text(encoding="utf-8"), EFFECTS[name]
    for table in (_accuracies(own["accuracy"], RUNS[name]), _depth(own["depth"]["0.0"]), _operations(own)):
        assert table in text
    # What each text and problem gave does not ship: these intervals stay those of the method that drew them.
    assert text.count("percentile") == 2


@pytest.mark.parametrize("name", RUNS)
def test_the_page_begins_with_the_accuracies_of_the_shipped_models(name: str) -> None:
    cells = [EFFECTS[name]["accuracy"][task]["none"] for task in ("trio-math", "trio-code")]
    plain = [f"{cell['value']:.2f}" for cell in cells]
    ends = [f"{cell['value']:.2f} ({cell['low']:.2f} to {cell['high']:.2f})" for cell in cells]
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `trio/{name}` |")]
    assert row.endswith(f"| {' | '.join(plain if name == 'ar' else ends)} |")

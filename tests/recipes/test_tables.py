"""What docs/trio.md shows is what the shipped files say."""

import json
from pathlib import Path

from dlens.models.source import TRIO_FOLDER
from recipes.trio.tables import kept_table, seeds_table


def test_the_page_has_the_tables_of_the_shipped_effects() -> None:
    effects = json.loads((TRIO_FOLDER / "effects.json").read_text(encoding="utf-8"))
    page = Path(__file__).parents[2].joinpath("docs", "trio.md").read_text(encoding="utf-8")
    assert seeds_table(effects) in page and kept_table(effects) in page

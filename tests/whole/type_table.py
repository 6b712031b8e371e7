"""Ask dlens of a tiny model of every type that transformers lists, and write what came of it into docs/models.md.

python -m tests.whole.type_table            # all types, and the table
python -m tests.whole.type_table llama opt  # some, printed alone
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import transformers

from dlens.models.families.decoder import MASKED as FILLS
from tests.whole.type_checks import Verdict, verdict
from tests.whole.types import CAUSAL, MASKED, tiny

__all__ = ["main", "table", "verdicts"]

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- every type, written by tests/whole/type_table.py -->", "<!-- end of every type -->"


def verdicts(names: Sequence[str], masked: bool) -> Iterator[Verdict]:
    """What each type turned out to be; those that cannot be made tiny are left out with their error."""
    family = replace(FILLS, mask_token_id=3) if masked else None
    for name in names:
        gc.collect()
        yield verdict(name, lambda name=name: tiny(name, masked), family)


def table(kind: str, found: Sequence[Verdict]) -> str:
    """The types by what holds for them."""
    made = [each for each in found if not each.unmade]
    groups = {
        "halves and blocks": [v.name for v in made if v.halves and not v.faults],
        "blocks": [v.name for v in made if not v.halves and not v.faults],
        "refused": [f"{v.name} ({v.short})" for v in made if v.refused],
        "wrong": [v.name for v in made if v.raw or v.wrong],
        "not made tiny by the script": [v.name for v in found if v.unmade],
    }
    rows = [f"| {what} | {len(names)} | {', '.join(names)} |" for what, names in groups.items() if names]
    return "\n".join([f"| {kind} | types | which |", "|---|---|---|", *rows])


def _print(found: Verdict) -> None:
    said = found.unmade or found.refused or found.raw or "; ".join(f"{k}: {v}" for k, v in found.wrong.items())
    state = "halves" if found.halves else "blocks"
    print(f"{found.name:26} {'-' if said else state:7} {','.join(found.points) if not said else said}", flush=True)


def main(names: Sequence[str] = ()) -> None:
    """Ask all types, or some."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    tables = []
    for kind, types in (("causal", CAUSAL), ("masked", MASKED)):
        found = []
        for each in verdicts([name for name in types if not names or name in names], kind == "masked"):
            _print(each)
            found.append(each)
        tables.append(table(kind, found))
    if names:
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n\n" + "\n\n".join(tables) + "\n\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

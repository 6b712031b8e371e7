"""Ask dlens of a tiny model of every type that transformers lists, and write what came of it into docs/models.md.

python -m tests.whole.type_table FOLDER            # all types, then the table; started again, it goes on where it was
python -m tests.whole.type_table FOLDER llama opt  # some, asked anew and printed alone
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import transformers

from dlens.models.families.decoder import MASKED as FILLS
from tests.whole.type_checks import Verdict, verdict
from tests.whole.types import CAUSAL, MASKED, tiny

__all__ = ["ask", "main", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- every type, written by tests/whole/type_table.py -->", "<!-- end of every type -->"
KINDS = {"causal": CAUSAL, "masked": MASKED}


def ask(kind: str, name: str) -> Verdict:
    """What a type turned out to be."""
    gc.collect()
    family = replace(FILLS, mask_token_id=3) if kind == "masked" else None
    return verdict(name, lambda: tiny(name, kind == "masked"), family)


def table(kind: str, found: Iterable[Verdict]) -> str:
    """The types by what holds for them."""
    found = list(found)
    made = [each for each in found if not each.unmade]
    right = [each for each in made if not each.faults]
    groups = {
        "right, blocks and both halves": [v.name for v in right if v.halves],
        "right, blocks alone": [v.name for v in right if not v.halves],
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


def main(folder: Path, names: Sequence[str] = ()) -> None:
    """Ask all types, or some, and keep each answer in a folder."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    folder.mkdir(parents=True, exist_ok=True)
    for kind, types in KINDS.items():
        for name in types:
            kept = folder / f"{kind}.{name}.json"
            if name in names or not (names or kept.exists()):
                found = ask(kind, name)
                _print(found)
                kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
    if not names:
        _write(table(kind, (_read(folder / f"{kind}.{name}.json") for name in types)) for kind, types in KINDS.items())


def _read(kept: Path) -> Verdict:
    return Verdict(**json.loads(kept.read_text(encoding="utf-8")))


def _write(tables: Iterable[str]) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n\n" + "\n\n".join(tables) + "\n\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

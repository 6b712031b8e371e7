"""The tables of docs/caches.md: `python -m recipes.caches.tables` writes them into the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlens.findings.scores.estimate import Estimate, kept_less, kept_share
from recipes.caches.measure import CACHES, OUT
from recipes.caches.streams import STATES
from recipes.tables import drawn, table

__all__ = ["CACHED", "TABLES", "kept", "less", "measured", "solved", "still", "written"]

PAGE = Path(__file__).parents[2] / "docs" / "caches.md"
CACHED = [name for name in CACHES if name != "none"]
LAYERS = (0, 3, 7, 11, 15)
Found = Mapping[str, Any]


def measured() -> Found:
    """What `measure` wrote."""
    return json.loads(OUT.read_text(encoding="utf-8"))


def solved(found: Found, model: str, cache: str, what: str) -> list[bool]:
    """Which problems are solved."""
    return [right == "1" for right in found["answers"][model][cache][what]["solved"]]


def still(found: Found, model: str, cache: str) -> Estimate:
    """The share of its accuracy that a model keeps with a cache."""
    return kept_share(solved(found, model, "none", "as it is"), solved(found, model, cache, "as it is"))


def kept(found: Found, model: str, cache: str) -> Estimate:
    """The share of its accuracy with a cache that a model keeps with blocks skipped."""
    return kept_share(*_both(found, model, cache))


def less(found: Found, model: str, cache: str) -> Estimate:
    """That share minus the same without a cache."""
    return kept_less(_both(found, model, cache), [_both(found, model, "none")])


def _both(found: Found, model: str, cache: str) -> tuple[list[bool], list[bool]]:
    return solved(found, model, cache, "as it is"), solved(found, model, cache, "skip")


def _answers(found: Found) -> str:
    rows = []
    for model, own in found["answers"].items():
        whole = own["none"]["as it is"]["flops"]
        for cache in CACHES:
            before, after = _both(found, model, cache)
            cached = cache != "none"
            rows.append(
                [
                    model,
                    cache,
                    str(len(before)),
                    _share(sum(before) / len(before)),
                    _points(still(found, model, cache)) if cached else "",
                    _share(sum(after) / len(after)),
                    _points(kept(found, model, cache)),
                    _points(less(found, model, cache)) if cached else "",
                    _share(own[cache]["as it is"]["flops"] / whole),
                    _share(own[cache]["skip"]["flops"] / whole),
                ]
            )
    head = ["model", "cache", "n", "solved, %", "of no cache", "skipped", "kept", "more than without"]
    return table([*head, "FLOPs, %", "skipped"], rows)


def _curves(found: Found, what: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Model, cache, curve, where there is such a curve."""
    for model, own in found["streams"].items():
        for cache in own:
            if what in own[cache]:
                yield model, cache, own[cache][what]


def _layers(found: Found) -> str:
    rows = []
    for model, own in found["streams"].items():
        rows.append([model, "two blocks skipped, no cache", *_cells(own["none"]["skip"], LAYERS)])
        for cache in CACHED:
            rows.append([model, cache, *_cells(own[cache]["layer"], LAYERS)])
            rows.append([model, f"{cache}, skipped in both", *_cells(own[cache]["skipped"], LAYERS)])
    return table(["1000 (1 - cosine)", "", *(f"layer {layer}" for layer in LAYERS)], rows)


def _steps(found: Found) -> str:
    rows = [[model, cache, *_cells(curve)] for model, cache, curve in _curves(found, "step")]
    return table(["1000 (1 - cosine)", "", *(f"step {step}" for step in range(len(rows[0]) - 2))], rows)


def _kept(found: Found) -> str:
    rows = [[model, cache, *_cells(curve)] for model, cache, curve in _curves(found, "kept")]
    return table(["1000 (1 - cosine)", "", *STATES], [row for row in rows if any(row[2:])])


def _drift(found: Found) -> str:
    rows = [[model, cache, *_cells(curve, LAYERS)] for model, cache, curve in _curves(found, "drift")]
    return table(["1000 (1 - cosine)", "", *(f"layer {layer}" for layer in LAYERS)], rows)


TABLES: dict[str, Callable[[Found], str]] = {
    "answers": _answers,
    "layers": _layers,
    "steps": _steps,
    "kept": _kept,
    "drift": _drift,
}
"""Name of a table in the page -> what draws it up."""


def written(page: str, found: Found) -> str:
    """The page with its tables of today."""
    return drawn(page, TABLES, found)


def _cells(curve: Mapping[str, Any], places: Sequence[int] | None = None) -> list[str]:
    every = range(len(curve["value"])) if places is None else places
    ends = [tuple(curve[name][place] for name in ("value", "low", "high")) for place in every]
    return ["" if value is None else f"{_away(value)} ({_away(high)} to {_away(low)})" for value, low, high in ends]


def _away(cosine: float) -> str:
    """How far from 1, in thousandths."""
    return f"{1000 * max(0.0, 1 - cosine):.1f}"


def _share(share: float) -> str:
    return f"{100 * share:.0f}"


def _points(one: Estimate) -> str:
    return f"{100 * one.value:.0f} ({100 * one.low:.0f} to {100 * one.high:.0f})"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), measured()), encoding="utf-8")

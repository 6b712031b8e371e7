"""The tables of docs/circuits.md: `python -m recipes.circuits.tables` writes them into the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recipes.circuits.measure import MODELS, OUT, SIZES, STEPS
from recipes.circuits.steps import SHOWN
from recipes.tables import drawn, table

__all__ = ["TABLES", "measured", "written"]

PAGE = Path(__file__).parents[2] / "docs" / "circuits.md"


def measured() -> dict[str, Any]:
    """What `measure` wrote."""
    return json.loads(OUT.read_text(encoding="utf-8"))


def _overlap(found: Mapping[str, Any]) -> str:
    tasks = found["tasks"]
    names = [name for name in tasks["trio-math"]["overlap"] if name != "random"]
    rows = [[name, *(_estimate(own["overlap"][name]) for own in tasks.values())] for name in names]
    rows.append(["random circuits", *(f"{own['overlap']['random']:.3f}" for own in tasks.values())])
    return table(["top 200 edges of", *tasks], rows)


def _faithfulness(found: Mapping[str, Any]) -> str:
    rows = []
    for task, own in found["tasks"].items():
        for name in MODELS:
            cells = [own["faithfulness"][name][str(size)] for size in SIZES]
            rows.append([task, name, *(f"{_estimate(cell['top'])}; {cell['random']['value']:.2f}" for cell in cells)])
    return table(["task", "model", *(f"{size} edges" for size in SIZES)], rows)


def _depth(found: Mapping[str, Any]) -> str:
    rows = [
        [task, name, *(_estimate(own["depth"][name][end]) for end in ("source", "target"))]
        for task, own in found["tasks"].items()
        for name in MODELS
    ]
    return table(["task", "model", "edges begin at", "and end at"], rows)


def _flow(found: Mapping[str, Any]) -> str:
    rows = []
    for name, own in found["heads"].items():
        for step in STEPS:
            cells = own["flow"][step]
            rows.append([name, step, *(f"{_estimate(cell)}; {cell['keys']:.2f}" for cell in cells.values())])
    return table(["model", "step", "prompt", "masks", "decoded"], rows)


def _stability(found: Mapping[str, Any]) -> str:
    rows = []
    for name, own in found["heads"].items():
        stable = own["stability"]
        ends = [f"{each['layer']}.{each['head']}: {_estimate(each)}" for each in stable["heads"]]
        counts = [f"{stable['above']} of {stable['of']}", f"{stable['median']:.2f}", f"{stable['others']:.2f}"]
        rows.append([name, *counts, "; ".join(ends[:3]), "; ".join(ends[3:])])
    return table(["model", "above 0.95", "median", "other heads", "most stable", "least stable"], rows)


def _step_overlap(found: Mapping[str, Any]) -> str:
    tasks = found["steps"]
    names = [name for name in tasks["trio-math"]["overlap"] if name != "random" and _compared(*name.split(" and "))]
    rows = [[*name.split(" and "), *(_estimate(own["overlap"][name]) for own in tasks.values())] for name in names]
    rows.append(["random circuits", "", *(f"{own['overlap']['random']:.3f}" for own in tasks.values())])
    return table(["top 200 edges of", "and of", *tasks], rows)


def _compared(one: str, other: str) -> bool:
    """Whether these are of one model, of one step, or one of them is of a model that has no such steps."""
    (model, _, step), (second, _, late) = one.partition(", "), other.partition(", ")
    return model == second or step == late or not step


def _step_faithfulness(found: Mapping[str, Any]) -> str:
    rows = [
        [task, name, step, *(_estimate(cell) for cell in cells.values())]
        for task, own in found["steps"].items()
        for name, steps in own["faithfulness"].items()
        for step, cells in steps.items()
    ]
    return table(["task", "model", "asked at", *(f"found at {step}" for step in SHOWN), "random"], rows)


def _answers(found: Mapping[str, Any]) -> str:
    rows = [
        [task, name, *(_estimate(cell) for cell in cells.values())]
        for task, own in found["steps"].items()
        for name, cells in own["answers"].items()
    ]
    return table(["task", "model and step", "clean", "corrupted"], rows)


def _same(found: Mapping[str, Any]) -> str:
    return _by_model(found, "same")


def _turn(found: Mapping[str, Any]) -> str:
    return _by_model(found, "turn")


def _by_model(found: Mapping[str, Any], what: str) -> str:
    rows = [[task, *(_estimate(cell) for cell in own[what].values())] for task, own in found["steps"].items()]
    return table(["task", *MODELS[1:]], rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "overlap": _overlap,
    "faithfulness": _faithfulness,
    "depth": _depth,
    "step-overlap": _step_overlap,
    "same": _same,
    "step-faithfulness": _step_faithfulness,
    "answers": _answers,
    "turn": _turn,
    "flow": _flow,
    "stability": _stability,
}
"""Name of a table in the page -> what draws it up."""


def written(page: str, found: Mapping[str, Any]) -> str:
    """The page with its tables of today."""
    return drawn(page, TABLES, found)


def _estimate(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.2f} ({cell['low']:.2f} to {cell['high']:.2f})"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), measured()), encoding="utf-8")

"""The tables of docs/compression.md: `python -m recipes.compression.tables` writes them into the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlens.findings.layers.compare import third
from dlens.findings.scores.estimate import Estimate, kept_less, kept_share, mean_of
from recipes.compression.measure import MODELS, OUT, RECIPES, TASKS
from recipes.tables import drawn, table

__all__ = ["TABLES", "alphas", "answers", "change", "kept", "less", "measured", "solved", "written"]

PAGE = Path(__file__).parents[2] / "docs" / "compression.md"
Answers = Mapping[str, Any]


def measured() -> Mapping[str, Any]:
    """What `measure` wrote."""
    return json.loads(OUT.read_text(encoding="utf-8"))


def answers() -> Answers:
    """The answers and losses in it."""
    return measured()["answers"]


def solved(found: Answers, model: str, what: str, task: str, seed: str = "0") -> list[bool]:
    """Which problems are solved."""
    return [right == "1" for right in found[model][what][seed]["solved"][task]]


def losses(found: Answers, model: str, what: str) -> np.ndarray:
    """The loss of each text, averaged over seeds."""
    return np.mean([own["losses"] for own in found[model][what].values()], axis=0)


def kept(found: Answers, model: str, what: str, task: str, seed: str) -> Estimate:
    """The share of its accuracy that a model keeps, with its interval over problems."""
    return kept_share(solved(found, model, "as it is", task), solved(found, model, what, task, seed))


def less(found: Answers, model: str, other: str, what: str, task: str, seed: str) -> Estimate:
    """The share that one model keeps minus that of another."""
    own, others = (
        (solved(found, name, "as it is", task), solved(found, name, what, task, seed)) for name in (model, other)
    )
    return kept_less(own, [others])


def change(found: Answers, model: str, what: str, beside: str = "as it is") -> Estimate:
    """Nats a token more than another, over texts."""
    return mean_of(losses(found, model, what) - losses(found, model, beside))


def _accuracy(found: Answers) -> str:
    rows = []
    for task in TASKS:
        for what in RECIPES:
            cells = []
            for model in MODELS:
                seeds = found[model][what]
                own = [kept(found, model, what, task, seed) for seed in seeds]
                cells.append("; ".join(map(_points, own)))
            rows.append([task, what, *cells])
    return table(["task", "", *MODELS], rows)


def _baseline(found: Answers) -> str:
    rows = [
        [model, *(f"{100 * np.mean(solved(found, model, 'as it is', task)):.0f} %" for task in TASKS),
         f"{np.mean(losses(found, model, 'as it is')):.2f}"]
        for model in MODELS
    ]  # fmt: skip
    return table(["model", *TASKS, "nats a token"], rows)


def _loss(found: Answers) -> str:
    return table(
        ["nats a token more", *MODELS],
        [[what, *(_number(change(found, model, what)) for model in MODELS)] for what in RECIPES],
    )


def _reversal(found: Answers) -> str:
    """Early-sparser minus late-sparser, in loss and in the share of problems solved."""
    early, late = "half, early sparser", "half, late sparser"
    rows = []
    for model in MODELS:
        cells = [_number(change(found, model, early, late))]
        for task in TASKS:
            own = [
                np.array(solved(found, model, early, task, seed), float)
                - np.array(solved(found, model, late, task, seed), float)
                for seed in found[model][early]
            ]
            difference = mean_of(np.mean(own, axis=0))
            cells.append(_points(difference))
        rows.append([model, *cells])
    return table(["early minus late", "nats a token", *(f"{task}, points" for task in TASKS)], rows)


def _three_bits(found: Answers) -> str:
    """How much more of its accuracy a diffusion model keeps at 3 bits than the AR model does."""
    what, rows = "3 bits, GPTQ", []
    seeds = list(found[MODELS[0]][what])
    for other in MODELS[1:]:
        for task in TASKS:
            own = [_points(less(found, other, MODELS[0], what, task, seed)) for seed in seeds]
            rows.append([f"{other} minus {MODELS[0]}", task, *own])
    return table(["kept at 3 bits, points", "task", *(f"seed {seed}" for seed in seeds)], rows)


def _skip(found: Answers) -> str:
    rows = []
    for model in MODELS:
        layers = ", ".join(map(str, found[model]["skip"]["0"]["layers"]))
        plain = change(found, model, "skip")
        small = change(found, model, "3 bits, GPTQ, skip", "3 bits, GPTQ")
        rows.append([model, layers, _number(plain), _number(small)])
    return table(["model", "skipped", "nats a token more", "the same at 3 bits"], rows)


def alphas(model: str) -> tuple[Estimate, Estimate, Estimate]:
    """The mean exponent of the first and last third of the layers, and their difference, over kinds of matrices."""
    alpha = np.array(measured()["alphas"][model])
    n = third(len(alpha))
    early, late = alpha[:n].mean(0), alpha[-n:].mean(0)
    return mean_of(early), mean_of(late), mean_of(early - late)


def _spectra(found: Answers) -> str:
    rows = [[model, *map(_number, alphas(model))] for model in found]
    return table(["alpha", "early layers", "late layers", "early minus late"], rows)


TABLES: dict[str, Callable[[Answers], str]] = {
    "baseline": _baseline,
    "accuracy": _accuracy,
    "three bits": _three_bits,
    "reversal": _reversal,
    "loss": _loss,
    "skip": _skip,
    "spectra": _spectra,
}
"""Name of a table in the page -> what draws it up."""


def written(page: str, found: Answers) -> str:
    """The page with its tables of today."""
    return drawn(page, TABLES, found)


def _number(one: Estimate) -> str:
    return f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"


def _points(one: Estimate) -> str:
    return f"{100 * one.value:.0f} ({100 * one.low:.0f} to {100 * one.high:.0f})"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), answers()), encoding="utf-8")

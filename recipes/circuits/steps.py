"""Circuits of later canvases, for docs/circuits.md: `python -m recipes.circuits.steps` adds them to circuits.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import dlens
from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import mean_interval
from recipes.circuits.measure import MODELS, SETS, TASKS, TOP, overlaps, write

# Half of what `measure` takes: there are seven models and steps.
PAIRS = 6
SHOWN = {"first": 0.0, "middle": 0.5, "last": 1.0}
# With fewer tokens to show, the three canvases would hardly differ.
FEWEST = 4


def asked(task: str, models: Mapping[str, dlens.Model]) -> dict[str, dlens.Pairs]:
    """Model and step -> the same pairs for each, that leave enough of their answers to show."""
    chosen = _long(task, models[MODELS[1]])
    found = {MODELS[0]: dlens.pairs(task, models[MODELS[0]], chosen[-1] + 1)[chosen]}
    for name in MODELS[1:]:
        for step, shown in tqdm(SHOWN.items(), desc=f"{task} {name} canvases"):
            found[f"{name}, {step}"] = dlens.pairs(task, models[name], chosen[-1] + 1, shown=shown)[chosen]
    return found


def _long(task: str, model: dlens.Model) -> list[int]:
    """The numbers of the pairs; the models share a tokenizer, and with it these."""
    n = SETS * PAIRS
    while True:
        first, last = (dlens.pairs(task, model, n, shown=shown).clean for shown in (0.0, 1.0))
        mask = model.family.mask_token_id
        shown = [one.count(mask) - other.count(mask) for one, other in zip(first, last, strict=True)]
        chosen = [number for number, count in enumerate(shown) if count >= FEWEST]
        if len(chosen) >= SETS * PAIRS:
            return chosen[: SETS * PAIRS]
        n *= 2


def circuits_of(pairs: Mapping[str, dlens.Pairs], models: Mapping[str, dlens.Model]) -> dict[str, list[dlens.Circuit]]:
    """Of each model and step a circuit for every set of pairs; the sets share none."""
    found = {}
    for name, own in pairs.items():
        parts = [own[number * PAIRS : (number + 1) * PAIRS] for number in range(SETS)]
        model = models[name.split(",")[0]]
        found[name] = [dlens.circuit(model, part) for part in tqdm(parts, desc=name)]
    return found


def same_pairs(circuits: Mapping[str, Sequence[dlens.Circuit]], name: str) -> dict[str, Any]:
    """How many of the top edges the first and the last canvas of the same pairs share, over sets."""
    both = zip(circuits[f"{name}, first"], circuits[f"{name}, last"], strict=True)
    return _mean(np.array([one.overlap(other, TOP) for one, other in both]))


def across(circuits: Mapping[str, Sequence[dlens.Circuit]], name: str) -> dict[str, Any]:
    """The share of the way that a step's top edges go at each step, on another set, and random edges beside them."""
    found: dict[str, Any] = {}
    for step in SHOWN:
        pairs = circuits[f"{name}, {step}"][1].pairs
        kept = {of: circuits[f"{name}, {of}"][0].top(TOP) for of in SHOWN}
        kept["random"] = kept[step].random()
        found[step] = {of: asdict(own.faithfulness(pairs=pairs)) for of, own in tqdm(kept.items(), desc=step)}
    return found


def answers(model: dlens.Model, pairs: dlens.Pairs) -> dict[str, Any]:
    """How much larger the logit of the right token is than that of the wrong one, in both rows."""
    found = {}
    for which in ("clean", "corrupted"):
        values = []
        for part in pairs.batches(16):
            record = dlens.trace(model).gradient("embed", of=part.metric()).forward(list(map(list, vars(part)[which])))
            values.append(record.metric)
        found[which] = _mean(torch.cat(values).numpy())
    return found


def turn(model: dlens.Model, pairs: dlens.Pairs) -> dict[str, Any]:
    """The share of the other masks that the model fills before the token asked for, where it decodes by itself."""
    shares = []
    for row, at in zip(pairs.clean, pairs.at, strict=True):
        record = dlens.trace(model).generate([list(row)], 0, infill=True, progress=False)
        shares.append(int(record.committed_at[0, at]) / (record.n_steps - 1))
    return _mean(np.array(shares))


def _mean(values: np.ndarray) -> dict[str, Any]:
    mean, low, high = mean_interval(values)
    return asdict(Estimate(float(mean), float(low), float(high), n=len(values)))


def main() -> None:
    """Measure, and add to circuits.json."""
    models, found = {name: dlens.load(name) for name in MODELS}, {}
    for task in TASKS:
        pairs = asked(task, models)
        circuits = circuits_of(pairs, models)
        found[task] = {
            "overlap": overlaps(circuits),
            "same": {name: same_pairs(circuits, name) for name in MODELS[1:]},
            "faithfulness": {name: across(circuits, name) for name in MODELS[1:]},
            "answers": {name: answers(models[name.split(",")[0]], own) for name, own in pairs.items()},
            "turn": {name: turn(models[name], pairs[f"{name}, first"][: 2 * PAIRS]) for name in MODELS[1:]},
        }
        write({"steps": found})


if __name__ == "__main__":
    main()

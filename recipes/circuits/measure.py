"""Circuits and heads of the trio, for docs/circuits.md: `python -m recipes.circuits.measure` writes circuits.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import dlens
from dlens.findings.scores.estimate import Estimate
from dlens.findings.scores.intervals import jackknife_interval, mean_interval
from dlens.tracing.probes.calibration import calibration_texts

MODELS = ("trio/ar", "trio/diffusion", "trio/ar-init")
TASKS = ("trio-math", "trio-code")
SIZES = (50, 200, 1000)
SETS, PAIRS, TOP = 4, 12, 200
PROMPTS, WORDS, NEW = 16, 8, 24
STEPS = {"first": 1, "middle": NEW // 2, "last": NEW - 2}
OUT = Path(__file__).parent / "circuits.json"


def circuits_of(task: str) -> dict[str, list[dlens.Circuit]]:
    """Of each model a circuit for every set of pairs; the sets share none."""
    found = {}
    for name in MODELS:
        pairs = dlens.pairs(task, name, n=SETS * PAIRS)
        parts = [pairs[number * PAIRS : (number + 1) * PAIRS] for number in range(SETS)]
        found[name] = [dlens.circuit(name, part) for part in tqdm(parts, desc=f"{task} {name}")]
    return found


def overlaps(circuits: dict[str, list[dlens.Circuit]]) -> dict[str, Any]:
    """How many of the top edges two models share, found on different pairs; on the diagonal a model with itself."""
    found, names = {}, list(circuits)
    for number, one in enumerate(names):
        for other in names[number:]:
            shared = np.array([[a.overlap(b, TOP) for b in circuits[other]] for a in circuits[one]])
            found[f"{one} and {other}"] = asdict(_over_sets(shared))
    a, b = (circuits[names[0]][0].random(TOP, seed) for seed in (0, 1))
    return found | {"random": a.overlap(b)}


def _over_sets(shared: np.ndarray) -> Estimate:
    """The mean over unlike sets, with a jackknife interval over sets."""

    def mean(sets: np.ndarray) -> float:
        return float(np.mean([shared[i, j] for i in sets for j in sets if i != j]))

    every = np.arange(len(shared))
    low, high = jackknife_interval([every], mean)
    return Estimate(mean(every), low, high, n=len(shared))


def faithfulness(circuits: Sequence[dlens.Circuit]) -> dict[str, Any]:
    """The share of the way that the top edges of one set go on the pairs of another, and random edges beside them."""
    found = {}
    for size in SIZES:
        top, random = circuits[0].top(size), circuits[0].random(size)
        found[str(size)] = {
            "top": asdict(top.faithfulness(pairs=circuits[1].pairs)),
            "random": asdict(random.faithfulness(pairs=circuits[1].pairs)),
        }
    return found


def depths(circuits: Sequence[dlens.Circuit]) -> dict[str, Any]:
    """Where the top edges begin and end, as shares of depth, averaged over edges and then over sets."""
    edges = [each.top(TOP).edges for each in circuits]
    layers = circuits[0].graph.n_layers
    found = {}
    for end in ("source", "target"):
        mean, low, high = mean_interval(np.array([float(each[f"{end}_layer"].mean()) / layers for each in edges]))
        found[end] = asdict(Estimate(float(mean), float(low), float(high), n=len(edges)))
    return found


def heads_of(name: str) -> dict[str, Any]:
    """What masks attend to at three steps of a run, and how stable the patterns of heads are."""
    trace = dlens.trace(name).capture("pattern")
    prompts = [" ".join(text.split()[:WORDS]) for text in calibration_texts()[:PROMPTS]]
    records = [trace.generate(prompt, NEW, progress=False) for prompt in tqdm(prompts, desc=name)]
    return {"flow": _flow(records), "stability": _stability(records)}


def _flow(records: Sequence[dlens.Record]) -> dict[str, Any]:
    flows = [dlens.attention_flow(record).mean(["layer", "head"]) for record in records]
    found: dict[str, Any] = {}
    for words, step in STEPS.items():
        for source in ("prompt", "masked", "decoded"):
            shares, keys = (
                np.array([float(values.sel(step=step, source=source)) for values in each])
                for each in (
                    [flow["share"].sel(state="masked") for flow in flows],
                    [flow["keys"] for flow in flows],
                )
            )
            mean, low, high = mean_interval(shares)
            own = asdict(Estimate(float(mean), float(low), float(high), n=len(flows)))
            found.setdefault(words, {})[source] = own | {"keys": float(keys.mean())}
    return found


def _stability(records: Sequence[dlens.Record]) -> dict[str, Any]:
    found = [dlens.pattern_stability(record) for record in records]
    own, others = (np.array([each[value].values for each in found]) for value in ("stability", "others"))
    mean, low, high = mean_interval(own)
    order = np.argsort(mean, axis=None)
    named = []
    for place in (*order[::-1][:3], *order[:3]):
        layer, head = np.unravel_index(place, mean.shape)
        value, start, stop = (float(each[layer, head]) for each in (mean, low, high))
        named.append({"layer": int(layer), "head": int(head)} | asdict(Estimate(value, start, stop, n=len(found))))
    return {
        "heads": named,
        "median": float(np.median(mean)),
        "others": float(np.median(others.mean(0))),
        "above": int((mean > 0.95).sum()),
        "of": mean.size,
    }


def write(parts: dict[str, Any]) -> None:
    """Put parts into circuits.json; others stay as they are."""
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    OUT.write_text(json.dumps(found | parts, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and write circuits.json."""
    found: dict[str, Any] = {"tasks": {}, "heads": {}}
    for task in TASKS:
        circuits = circuits_of(task)
        found["tasks"][task] = {
            "overlap": overlaps(circuits),
            "faithfulness": {name: faithfulness(own) for name, own in circuits.items()},
            "depth": {name: depths(own) for name, own in circuits.items()},
        }
    for name in MODELS[1:]:
        found["heads"][name] = heads_of(name)
    write(found)


if __name__ == "__main__":
    main()

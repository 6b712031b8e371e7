"""The tables of docs/trio.md over training seeds: `python -m recipes.trio.tables` prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from dlens.models.source import TRIO_FOLDER
from recipes.trio.effects import SKIPS
from recipes.trio.figures import SEEDS

__all__ = ["kept_table", "seeds_table"]

_TASKS = ("trio-math", "trio-code")
_DEPTHS = {"1 to 5": slice(1, 6), "6 to 10": slice(6, 11), "11 to 15": slice(11, 16)}
_MASKED = {"half of the tokens masked": "0.5", "nine tenths masked": "0.9"}
_CHANNELS = {
    "the largest channel to zero": "zero top channel",
    "the largest channel to its mean": "mean top channel",
    "the next channels, as many as come closest to its energy, to zero": "zero next channels",
    "the next channels to their means": "mean next channels",
}


def seeds_table(effects: Mapping[str, Any]) -> str:
    """Accuracy, cosine and the largest channel's share of both objectives, a number a seed.

    Args:
        effects: effects.json, as `publish` wrote it.
    """

    def accuracy(task: str) -> Callable[[Any], str]:
        return lambda own: f"{own['accuracy'][task]['none']['value']:.2f}"

    def cosine(layers: slice) -> Callable[[Any], str]:
        return lambda own: f"{fmean(own['depth']['0.0']['cosine']['mean'][layers]):.3f}"

    def share(rate: str) -> Callable[[Any], str]:
        return lambda own: f"{fmean(own['depth'][rate]['top_share']['mean'][:-1]):.2f}" if rate in own["depth"] else ""

    rows: dict[str, Callable[[Any], str]] = {f"{task} accuracy": accuracy(task) for task in _TASKS}
    rows |= {f"cosine, blocks {words}": cosine(layers) for words, layers in _DEPTHS.items()}
    rows |= {"energy share of each block's largest channel, mean over blocks 0 to 14": share("0.0")}
    rows |= {f"the same, {words}": share(rate) for words, rate in _MASKED.items()}
    return _table(
        "at 403 M tokens", {name: [_three(effects, runs, of) for runs in SEEDS.values()] for name, of in rows.items()}
    )


def kept_table(effects: Mapping[str, Any]) -> str:
    """What an operation leaves of the accuracy, a number a seed, trio-math and then trio-code.

    Args:
        effects: effects.json, as `publish` wrote it.
    """

    def kept(task: str, name: str) -> Callable[[Any], str]:
        return lambda own: f"{own['accuracy'][task][name]['value'] / own['accuracy'][task]['none']['value']:.2f}"

    names = {f"skip {', '.join(map(str, blocks))} ({words})": f"skip {words}" for words, blocks in SKIPS.items()}
    return _table(
        "operation",
        {
            words: ["; ".join(_three(effects, runs, kept(task, name)) for task in _TASKS) for runs in SEEDS.values()]
            for words, name in (names | _CHANNELS).items()
        },
    )


def _three(effects: Mapping[str, Any], runs: Sequence[str], of: Callable[[Any], str]) -> str:
    return ", ".join(found for run in runs if (found := of(effects[run])))


def _table(what: str, rows: Mapping[str, Sequence[str]]) -> str:
    head = [f"| {what} | {' | '.join(f'{objective}, three seeds' for objective in SEEDS)} |", "|---|---|---|"]
    return "\n".join(head + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


if __name__ == "__main__":
    measured = json.loads((TRIO_FOLDER / "effects.json").read_text(encoding="utf-8"))
    print(seeds_table(measured), kept_table(measured), sep="\n\n")

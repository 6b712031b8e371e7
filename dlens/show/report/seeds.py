"""The trio's runs over training seeds, as the files that ship with it say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

from dlens.findings.layers.compare import third
from dlens.findings.scores.estimate import Estimate
from dlens.models.source import TRIO, TRIO_FOLDER
from dlens.show.report.page import Section

__all__ = ["SEEDS_APART", "SEEDS_TASK", "kept_apart", "kept_in_a_row", "seeds_section"]

_RUN = re.compile(r"(ar-init|ar|diffusion)(?:-(s?)(\d+))?")
SEEDS_TASK = "trio-code"
SEEDS_APART = (1, 3, 5)
_TEXTS = "16 held-out texts of each of four domains, without masks"
_COLUMNS = (
    "run",
    "step",
    "cosine, early minus late",
    "largest channel, first third",
    f"{SEEDS_TASK} accuracy",
    "kept, early non-adjacent",
    "kept, early consecutive",
    "kept, late consecutive",
    "largest channel, all blocks but the last",
    "kept without that channel",
)
# What is skipped in three blocks in a row, by the names of effects.json.
_EARLY, _LATE = "skip early consecutive", "skip late consecutive"
_APART = "skip early non-adjacent"


def seeds_section(removed: Mapping[str, Sequence[int]] | None = None, folder: Path = TRIO_FOLDER) -> Section | None:
    """A row for each run of the trio: the shipped ones, checkpoints on the way, and further seeds.

    Args:
        removed: the channels that a report sets to zero, by model.
        folder: where training.json and effects.json are.

    Returns:
        None where the files are not there.
    """
    training, measured = folder / "training.json", _effects(folder)
    if not (training.exists() and measured):
        return None
    trained = json.loads(training.read_text(encoding="utf-8"))
    runs = {name: match for name in measured if (match := _RUN.fullmatch(name))}
    order = sorted(runs, key=lambda name: (runs[name][1], runs[name][2] or "", int(runs[name][3] or 0)))
    rows = [[_words(runs[name]), _step(runs[name], trained), *_numbers(measured[name])] for name in order]
    return Section("The trio over training seeds", _text(measured, removed or {}), None, _COLUMNS, rows, folded=False)


def kept_in_a_row(model: str, folder: Path = TRIO_FOLDER) -> tuple[Estimate, Estimate] | None:
    """What a shipped model of the trio keeps of the accuracy without three blocks in a row, early and late.

    The interval is that of the accuracy, over the accuracy of the model as it is.

    Returns:
        None for other models, and where the file is not there.
    """
    found = _kept(model, folder, (_EARLY, _LATE))
    return (found[0], found[1]) if found else None


def kept_apart(model: str, folder: Path = TRIO_FOLDER) -> Estimate | None:
    """The same without three blocks of which no two are neighbours."""
    found = _kept(model, folder, (_APART,))
    return found[0] if found else None


def _kept(model: str, folder: Path, changes: Sequence[str]) -> list[Estimate]:
    """What is kept after changes by the names of effects.json; nothing where that is not known."""
    run = _effects(folder).get(model.removeprefix("trio/")) if model in TRIO else None
    if run is None:
        return []
    solved = run["accuracy"][SEEDS_TASK]
    whole = solved["none"]["value"]
    if not whole:
        return []
    return [
        Estimate(*(solved[name][part] / whole for part in ("value", "low", "high")), n=solved[name]["n"])
        for name in changes
    ]


def _effects(folder: Path) -> dict[str, Any]:
    file = folder / "effects.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _text(measured: Mapping[str, Any], removed: Mapping[str, Sequence[int]]) -> str:
    problems = sorted({run["accuracy"][SEEDS_TASK]["none"]["n"] for run in measured.values()})
    return (
        "The intervals above cover texts and problems, for one training run of each model. How far runs with other "
        "training seeds differ from each other is what they do not cover; compare runs of the same step. These numbers "
        "come with the trio and were taken in another way than those above, so that they differ for the shipped "
        f"models, too: on {_TEXTS} and {' or '.join(map(str, problems))} problems of {SEEDS_TASK}, whatever the "
        "report's, with a sampler that decodes one token a step where the report's decodes two. Skipped are blocks "
        f"{', '.join(map(str, SEEDS_APART))} (early non-adjacent), 2, 3, 4 (early consecutive) and 11, 12, 13 (late "
        "consecutive) of every run, where the report chooses the non-adjacent blocks for each model. The share is that "
        "of each layer's own largest channel. The channel that is set to zero is the largest over all blocks but the "
        "last on these texts"
        f"{_other_channels(measured, removed)}."
    )


def _other_channels(measured: Mapping[str, Any], removed: Mapping[str, Sequence[int]]) -> str:
    """Where the report removes others than the one that was removed from the same model here."""
    said = []
    for model, channels in removed.items():
        own = _channel(measured.get(model.removeprefix("trio/"))) if model in TRIO else None
        if own is not None and channels and list(channels) != [own]:
            said.append(f"{' and '.join(map(str, channels))} from {model}, where it is {own} here")
    return f"; the report removes {', '.join(said)}" if said else ""


def _channel(run: Mapping[str, Any] | None) -> int | None:
    return run["channels"]["top"][0] if run else None


def _words(run: re.Match[str]) -> str:
    name, seeded, number = run.groups()
    if not number:
        return f"trio/{name}, as shipped"
    return f"trio/{name}, seed {number}" if seeded else f"trio/{name}, on the way"


def _step(run: re.Match[str], trained: Mapping[str, Any]) -> Any:
    name, seeded, number = run.groups()
    if number and not seeded:
        return int(number)
    own = trained.get(run[0])
    return own["points"][-1]["step"] if own else "–"


def _numbers(measured: Mapping[str, Any]) -> list[Any]:
    clean, solved = measured["depth"]["0.0"], measured["accuracy"][SEEDS_TASK]
    cosine, share = clean["cosine"]["mean"], clean["top_share"]["mean"]
    n = third(len(cosine))
    whole = solved["none"]["value"]
    changed = (_APART, _EARLY, _LATE, "zero top channel")
    *skipped, zeroed = [solved[name]["value"] / whole if whole and name in solved else nan for name in changed]
    channel = _channel(measured)
    return [fmean(cosine[1 : 1 + n]) - fmean(cosine[-n:]), fmean(share[:n]), whole, *skipped, channel, zeroed]

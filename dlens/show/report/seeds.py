"""The trio's runs over training seeds, as the files that ship with it say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from dlens.findings.layers.compare import third
from dlens.models.source import TRIO_FOLDER
from dlens.show.report.page import Section

__all__ = ["seeds_section"]

_RUN = re.compile(r"(ar-init|ar|diffusion)(?:-(s?)(\d+))?")
_TASK = "trio-code"
_TEXTS = "16 held-out texts of each of four domains, without masks"
_COLUMNS = (
    "run",
    "step",
    "cosine, early minus late",
    "largest channel, first third",
    f"{_TASK} accuracy",
    "kept, early non-adjacent",
    "kept, early consecutive",
    "kept, late consecutive",
    "kept without the largest channel",
)


def seeds_section(folder: Path = TRIO_FOLDER) -> Section | None:
    """A row for each run of the trio: the shipped ones, checkpoints on the way, and further seeds.

    Args:
        folder: where training.json and effects.json are.

    Returns:
        None where the files are not there.
    """
    training, effects = folder / "training.json", folder / "effects.json"
    if not (training.exists() and effects.exists()):
        return None
    trained = json.loads(training.read_text(encoding="utf-8"))
    measured = json.loads(effects.read_text(encoding="utf-8"))
    runs = {name: match for name in measured if (match := _RUN.fullmatch(name))}
    order = sorted(runs, key=lambda name: (runs[name][1], runs[name][2] or "", int(runs[name][3] or 0)))
    rows = [[_words(runs[name]), _step(runs[name], trained), *_numbers(measured[name])] for name in order]
    return Section("The trio over training seeds", _text(measured), None, _COLUMNS, rows, folded=False)


def _text(measured: Mapping[str, Any]) -> str:
    problems = sorted({run["accuracy"][_TASK]["none"]["n"] for run in measured.values()})
    return (
        "The intervals above cover texts and problems, for one training run of each model. How far runs with other "
        "training seeds differ from each other is what they do not cover; compare runs of the same step. These numbers "
        "come with the trio and were taken in another way than those above, so that they differ for the shipped "
        f"models, too: on {_TEXTS} and {' or '.join(map(str, problems))} problems of {_TASK}, whatever the report's, "
        "with a sampler that decodes one token a step where the report's decodes two. Skipped are blocks 1, 3, 5 "
        "(early non-adjacent), 2, 3, 4 (early consecutive) and 11, 12, 13 (late consecutive) of every run, where the "
        "report chooses the non-adjacent blocks for each model. The share is that of each layer's own largest channel."
    )


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


def _numbers(measured: Mapping[str, Any]) -> list[float]:
    clean, solved = measured["depth"]["0.0"], measured["accuracy"][_TASK]
    cosine, share = clean["cosine"]["mean"], clean["top_share"]["mean"]
    n = third(len(cosine))
    whole = solved["none"]["value"]
    changed = ("skip early non-adjacent", "skip early consecutive", "skip late consecutive", "zero top channel")
    kept = [solved[name]["value"] / whole if whole and name in solved else float("nan") for name in changed]
    return [fmean(cosine[1 : 1 + n]) - fmean(cosine[-n:]), fmean(share[:n]), whole, *kept]

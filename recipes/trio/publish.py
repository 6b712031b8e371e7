"""Put finished runs into the package: `python -m recipes.trio.publish --runs runs --effects effects --data data`.

Writes weights, tokenizer, configuration and card of each model, and what was measured of every run, to
dlens/models/trio. Runs are named NAME for the models that ship and NAME-sK for their further seeds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import tyro

from dlens.models.source import TRIO_FOLDER
from recipes.trio.cards import card
from recipes.trio.objective import RUNS
from recipes.trio.samples import samples
from recipes.trio.summary import summarize_effects, summarize_run

__all__ = ["publish"]


def publish(runs: Path = Path("runs"), effects: Path = Path("effects"), data: Path = Path("data")) -> None:
    """Put finished runs into the package.

    Args:
        runs: folder of the runs, as `train` left them.
        effects: folder of what `effects` wrote, NAME.json, and NAME-STEP.json for checkpoints on the way.
        data: the folder that `prepare` wrote.
    """
    for name in RUNS:
        shutil.copytree(runs / name / "model", TRIO_FOLDER / name, dirs_exist_ok=True)
    trained = {run.parent.name: summarize_run(run.parent) for run in sorted(runs.glob("*/losses.jsonl"))}
    measured = {path.stem: summarize_effects(json.loads(path.read_text())) for path in sorted(effects.glob("*.json"))}
    (TRIO_FOLDER / "training.json").write_text(json.dumps(trained) + "\n")
    (TRIO_FOLDER / "effects.json").write_text(json.dumps(measured) + "\n")
    about = json.loads((data / "data.json").read_text())
    for name in RUNS:
        text = card(name, about, trained[name], measured, samples(f"trio/{name}"))
        (TRIO_FOLDER / name / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(publish)

"""Runs and effects as the numbers that go into the package, each with its 95 % interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlens.findings.scores.intervals import mean_interval, share_interval

__all__ = ["summarize_effects", "summarize_run"]

# Points of a loss curve; each is the mean over the steps since the one before.
_CURVE = 100


def summarize_run(folder: Path) -> dict[str, Any]:
    """The loss curve and the numbers along the way of one run.

    Args:
        folder: as `train` left it.
    """
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    parts = np.array_split(np.array([[line["step"], line["loss"]] for line in lines]), min(_CURVE, len(lines)))
    curve = [{"step": int(part[-1, 0]), "loss": round(float(part[:, 1].mean()), 4)} for part in parts]
    points = [json.loads(line) for line in (folder / "numbers.jsonl").read_text().splitlines()]
    return {"curve": curve, "points": [_rounded(point) for point in points]}


def summarize_effects(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `effects` measured, with intervals.

    Depth profiles are means over texts with an interval over texts; accuracies have Wilson's interval; their changes
    against the untouched model on the same problems one over problems, in pairs.

    Args:
        found: the file that `effects` wrote.
    """
    tasks = found["solved"]["none"]
    return {
        "family": found["family"],
        "channels": found["channels"],
        "depth": {rate: _depth(measured) for rate, measured in found["depth"].items()},
        "accuracy": {
            task: {name: _accuracy(solved[task], tasks[task]) for name, solved in found["solved"].items()}
            for task in tasks
        },
    }


def _depth(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "top_channel": measured["top_channel"],
        "cosine": _means(np.array(measured["cosine"])),
        "top_share": _means(np.array(measured["top_share"])),
    }


def _means(by_text: np.ndarray) -> dict[str, list[float]]:
    """Mean over the first axis, with its interval."""
    mean, low, high = mean_interval(by_text)
    return _rounded({"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()})


def _accuracy(solved: str, untouched: str) -> dict[str, Any]:
    right = solved.count("1")
    low, high = share_interval([digit == "1" for digit in solved])
    change = np.array([int(now) - int(before) for now, before in zip(solved, untouched, strict=True)])
    changed = {"value": right / len(solved), "low": low, "high": high, "n": len(solved)}
    return _rounded(changed | {"change": _change(change)})


def _change(change: np.ndarray) -> dict[str, float]:
    """Mean change a problem; an interval of no width where no problem changed."""
    mean, low, high = mean_interval(change.astype(float))
    return {"value": float(mean), "low": float(low), "high": float(high)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return round(float(value), 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value

"""Studies made by hand, with effects that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlens.findings.study.study import FULL, Kind, Study

__all__ = ["ANSWERED", "CHANGES", "made_model", "made_study"]

CHANGES = ("whole", "apart", "early run", "late run", "no outlier", "no random", "mean outlier", "no next")
SKIPS = ("apart", "early run", "late run")
ANSWERED = ("whole", "apart", "early run", "no outlier", "no random")


def made_model(
    kind: Kind,
    cosine: Sequence[float],
    recency: float = 0.1,
    share: float = 0.1,
    solved: Mapping[str, str] | None = None,
    losses: Mapping[str, float] | None = None,
    texts: int = 6,
    next_share: float = 0.01,
) -> dict[str, Any]:
    """What a study holds of one model.

    Args:
        kind: of the model.
        cosine: by layer; texts differ from it by a little.
        recency, share: in every layer.
        solved: for each change a digit a problem.
        losses: for each change the loss of every text, besides what is the same for all changes.
        texts: how many.
        next_share: of the second largest channel of the early blocks, in every layer.
    """
    rng = np.random.default_rng(0)
    n_layers = len(cosine)
    shifts = rng.normal(0, 0.001, (texts, 1))

    def by_layer(values: Any) -> list[list[float]]:
        return (np.broadcast_to(values, (texts, n_layers)) + shifts).tolist()

    def texts_at(lift: float) -> dict[str, Any]:
        return {
            "cosine": by_layer(np.array(cosine) + lift),
            "cosine_masked": by_layer(np.array(cosine) + lift),
            "cosine_unmasked": by_layer(np.array(cosine)),
            "share": by_layer(share),
            "early_share": by_layer(share),
            "early_next_share": by_layer(next_share),
            "recency": by_layer(recency),
            "similarity": (0.5 - np.arange(8) / 20 + shifts).tolist(),
        }

    rates = {"0": 0.0} if kind == "ar" else {"0": 0.0, "0.25": 0.001, "0.5": 0.002, "0.75": 0.003}
    solved = solved or dict.fromkeys(ANSWERED, "11110000")
    losses = losses or {}
    base = rng.normal(3, 0.1, texts)
    return {
        "kind": kind,
        "family": kind,
        "n_layers": n_layers,
        "d_model": 8,
        "reading": {
            "channel": 5,
            "share": share,
            "early_channels": [6, 7],
            "noise": {name: texts_at(lift) for name, lift in rates.items()},
        },
        "changes": {name: f"{name} <in words>" for name in CHANGES},
        "skipped": {name: (1,) if name in SKIPS else () for name in CHANGES},
        "losses": {
            name: {
                "losses": (base + losses.get(name, 0.0)).tolist(),
                "estimator": "cross-entropy",
                "flops_saved": 0.125,
            }
            for name in CHANGES
        },
        "answers": {
            name: {"correct": [int(digit) for digit in digits], "repetition": 0.1, "examples": ["a\nb"], "notes": []}
            for name, digits in solved.items()
        },
    }


def made_study(models: Mapping[str, dict[str, Any]]) -> Study:
    """A study of models made by hand."""
    return Study(models, FULL, "trio-code", {"dlens": "0"})

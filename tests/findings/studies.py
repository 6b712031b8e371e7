"""Studies made by hand, with effects that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dlens.findings.effects.change import Change
from dlens.findings.study.asking import COMPRESSED
from dlens.findings.study.results import (
    Answers,
    Compressed,
    Disrupted,
    Losses,
    ModelKind,
    ModelStudy,
    Reading,
    Solved,
    Spectra,
    TextReading,
    Thirds,
)
from dlens.findings.study.study import FULL, Study
from dlens.ops.base.scope import Third

__all__ = ["ANSWERED", "CHANGES", "EARLY", "EVEN", "TRIO", "deep", "made_model", "made_study", "small"]

CHANGES = (
    "whole",
    "apart",
    "early run",
    "late run",
    "no outlier",
    "no random",
    "mean outlier",
    "no next",
    "no largest",
)
SKIPS = ("apart", "early run", "late run")
ANSWERED = ("whole", "apart", "early run", "no outlier", "no random", "no largest")


def made_model(
    kind: ModelKind,
    cosine: Sequence[float],
    recency: float = 0.1,
    share: float = 0.1,
    solved: Mapping[str, str] | None = None,
    losses: Mapping[str, float] | None = None,
    texts: int = 6,
    next_share: float = 0.01,
) -> ModelStudy:
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

    def by_layer(values: Any) -> np.ndarray:
        return np.broadcast_to(values, (texts, n_layers)) + shifts

    def texts_at(lift: float) -> TextReading:
        return TextReading(
            cosine=by_layer(np.array(cosine) + lift),
            cosine_masked=by_layer(np.array(cosine) + lift),
            cosine_unmasked=by_layer(np.array(cosine)),
            share=by_layer(share),
            early_share=by_layer(share),
            early_next_share=by_layer(next_share),
            recency=by_layer(recency),
            similarity=0.5 - np.arange(8) / 20 + shifts,
        )

    rates = {0.0: 0.0} if kind == "ar" else {0.0: 0.0, 0.25: 0.001, 0.5: 0.002, 0.75: 0.003}
    solved = solved or dict.fromkeys(ANSWERED, "11110000")
    losses = losses or {}
    base = rng.normal(3, 0.1, texts)
    return ModelStudy(
        kind=kind,
        family=kind,
        n_layers=n_layers,
        d_model=8,
        reading=Reading(5, share, (6, 7), {rate: texts_at(lift) for rate, lift in rates.items()}),
        changes={name: Change(name, f"{name} <in words>", layers=(1,) if name in SKIPS else ()) for name in CHANGES},
        losses={
            name: Losses(tuple((base + losses.get(name, 0.0)).tolist()), "cross-entropy", 0.125) for name in CHANGES
        },
        answers={name: Answers(digits_of(digits), 0.1, ("a\nb",)) for name, digits in solved.items()},
    )


def digits_of(digits: str) -> tuple[bool, ...]:
    """Solved where there is a 1."""
    return tuple(digit == "1" for digit in digits)


def deep(model: ModelStudy, cosine: Sequence[float], kept: Mapping[Third, str]) -> ModelStudy:
    """The same model with disruption and thirds.

    Args:
        model: whose.
        cosine: by layer with half of the tokens decided; 0.1 more with none.
        kept: for each third a digit a problem; half of as many are solved before.
    """
    middle = np.array([np.array(cosine) + 0.1, cosine])
    disruption = Disrupted(middle, middle - 0.05, middle + 0.05, (0.0, 0.5), 16)
    thirds: dict[Third, Solved] = {
        third: Solved(tuple(i < len(digits) // 2 for i in range(len(digits))), digits_of(digits))
        for third, digits in kept.items()
    }
    return replace(model, disruption=disruption, thirds=Thirds(thirds, ("thirds <of> steps",)))


def small(model: ModelStudy, solved: Sequence[str], losses: Sequence[float], alpha: Sequence[float]) -> ModelStudy:
    """The same model with fewer bits and weights.

    Args:
        model: whose.
        solved: for each recipe a digit a problem.
        losses: for each recipe how much the loss of every text rises.
        alpha: of every matrix of a layer; two matrices differ by 0.1.
    """
    base = model.losses["whole"].losses
    compressed = {
        name: Compressed(f"{name} <in words>", (), digits_of(digits), tuple(loss + rise for loss in base))
        for name, digits, rise in zip(COMPRESSED, solved, losses, strict=True)
    }
    return replace(model, compressed=compressed, spectra=Spectra(np.array([[own, own + 0.1] for own in alpha])))


def made_study(models: Mapping[str, ModelStudy]) -> Study:
    """A study of models made by hand."""
    compression = any(model.compressed for model in models.values())
    return Study(models, replace(FULL, compression=compression), "trio-code", {"dlens": "0"})


EARLY = [0.1, 0.99, 0.99, 0.95, 0.9, 0.9, 0.8]
EVEN = [0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
TRIO = {"ar": made_model("ar", EVEN, 0.3), "dllm": made_model("diffusion", EARLY, 0.1, share=0.6)}
